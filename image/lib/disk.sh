# SPDX-License-Identifier: Apache-2.0
# Sourced by image/*/build: a disk with an MBR, GRUB and one ext4 partition, made without loop devices. Wants `die`.
# GRUB comes from Debian packages that are unpacked and not installed; each function says what it needs.

# The files of these packages, in a folder, unless they are there already. fetch_debs FOLDER PACKAGE…
fetch_debs() {
	debs=$1
	shift
	missing=
	for package; do
		[ -n "$(find "$debs" -name "${package}_*.deb" -print -quit)" ] || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	echo "downloading$missing"
	# shellcheck disable=SC2086
	(cd "$debs" && apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download $missing) > "$debs/../download.log" 2>&1 || {
		tail -n 3 "$debs/../download.log" >&2
		die "apt-get could not download the packages; with an old package list: apt-get update"
	}
}

# GRUB's core with the file system driver and its orders built in: no folder of modules, no menu.
# make_boot_core SYS CONFIG CORE: grub-common and grub-pc-bin are unpacked in SYS; the orders are read from CONFIG
make_boot_core() {
	"$1/usr/bin/grub-mkimage" -d "$1/usr/lib/grub/i386-pc" -O i386-pc -p '(hd0,msdos1)/boot/grub' \
		-c "$2" -o "$3" biosdisk part_msdos ext2 linux
	[ "$(stat -c %s "$3")" -le $((2047 * 512)) ] || die "GRUB's core does not fit before the partition"
}

le32() {
	printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)))"
}

# The sectors of the partition on a disk of so many MiB: it begins at 1 MiB.
partition_sectors() {
	echo $(($1 * 2048 - 2048))
}

# make_fs ROOT FS LABEL SIZE_MIB [OPTION…]: the root file system of a disk of that size, with the folder ROOT in it.
# Options are mke2fs's.
make_fs() {
	root=$1 fs=$2 label=$3 kib=$(($(partition_sectors "$4") / 2))
	shift 4
	# -E resize: room in the group descriptors to grow online to 1 TiB.
	# The features are named, since a newer mke2fs turns on some that GRUB cannot read.
	mke2fs -q -t ext4 -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize \
		-b 4096 -L "$label" -m 1 -E "resize=268435456,root_owner=0:0" "$@" -d "$root" "$fs" "${kib}k" ||
		die "mke2fs could not make the root file system; is --size-mib too small?"
	if [ "$(id -u)" != 0 ]; then
		(cd "$root" && find . -mindepth 1 | sed 's/^\.//' | while read -r path; do
			printf 'sif "%s" uid 0\nsif "%s" gid 0\n' "$path" "$path"
		done) | debugfs -w -f - "$fs" > /dev/null 2>&1
	fi
}

# make_disk SYS CORE FS DISK SIZE_MIB: boot.img of grub-pc-bin is taken from SYS
make_disk() {
	truncate -s "${5}M" "$4"
	dd if="$1/usr/lib/grub/i386-pc/boot.img" of="$4" bs=440 count=1 conv=notrunc status=none
	{
		printf '\200\040\041\000\203\376\377\377' # active, type 83h; CHS fields that say "see the LBA ones"
		le32 2048
		le32 "$(partition_sectors "$5")"
		head -c 48 /dev/zero
		printf '\125\252'
	} | dd of="$4" bs=1 seek=446 conv=notrunc status=none
	dd if="$2" of="$4" bs=512 seek=1 conv=notrunc status=none
	dd if="$3" of="$4" bs=1M seek=1 conv=notrunc,sparse status=none
}
