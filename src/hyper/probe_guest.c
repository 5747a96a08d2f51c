/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The probe's guest: one machine of 64 KiB and one processor, driven through /dev/kvm without QEMU.
 *
 *   stage 1  real mode: a counting loop, then OUT 1
 *   stage 2  long mode, as a kernel starts: descriptor tables, MSRs, SWAPGS, control registers,
 * INVLPG, CPUID, a breakpoint taken through the IDT and returned from; PROBE_PRIVILEGED_ROUNDS
 * times, then OUT 2 stage 3  a counting loop of PROBE_LOOP_INSTRUCTIONS, then OUT 3
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "hyper/probe_priv.h"

#ifdef __x86_64__
#include <linux/kvm.h>

#define CPUID_ENTRIES 256 /* as many as KVM knows; with too few it answers E2BIG */

/* Guest memory, by address */
enum {
	MEM_SIZE = 0x10000,
	AT_CODE64 = 0x1000,
	AT_PML4 = 0x2000,
	AT_PDPT = 0x3000,
	AT_PD = 0x4000,
	AT_GDT = 0x5000,
	AT_GDTR = 0x5800,
	AT_IDT = 0x6000,
	AT_IDTR = 0x6800,
	AT_STACK = 0x8000,
	AT_CODE16 = 0x9000,
};
enum { OUT_REAL = 1, OUT_PRIVILEGED, OUT_LOOP, OUT_PORT = 0x10 };

extern const char probe_code16[], probe_code16_end[], probe_code64[], probe_code64_end[],
    probe_iret[];

/* ecx, rbx and rcx are set by the host before each run. */
__asm__(".pushsection .rodata\n"
	"probe_code16: .code16\n"
	"1:	dec %ecx\n"
	"	jnz 1b\n"
	"	mov $1, %al\n"
	"	out %al, $0x10\n"
	"	hlt\n"
	"probe_code16_end: .code64\n"
	"probe_code64:\n"
	"2:	lgdt 0x5800\n"
	"	lidt 0x6800\n"
	"	mov $0xc0000102, %ecx\n" /* kernel GS base */
	"	rdmsr\n"
	"	wrmsr\n"
	"	swapgs\n"
	"	swapgs\n"
	"	mov %cr4, %rax\n"
	"	mov %rax, %cr4\n"
	"	mov %cr3, %rax\n"
	"	mov %rax, %cr3\n"
	"	invlpg 0x1000\n"
	"	pushfq\n"
	"	popfq\n"
	"	mov %rbx, %rsi\n" /* cpuid writes rbx */
	"	xor %eax, %eax\n"
	"	cpuid\n"
	"	mov %rsi, %rbx\n"
	"	int3\n"
	"	dec %rbx\n"
	"	jnz 2b\n"
	"	mov $2, %al\n"
	"	out %al, $0x10\n"
	"	mov %rdi, %rcx\n"
	"3:	dec %rcx\n"
	"	jnz 3b\n"
	"	mov $3, %al\n"
	"	out %al, $0x10\n"
	"	hlt\n"
	"probe_iret:\n"
	"	iretq\n"
	"probe_code64_end:\n"
	".popsection\n");

struct guest {
	int kvm, vm, cpu;
	uint8_t *mem;
	struct kvm_run *run;
	size_t run_size;
};

static void put64(uint8_t *mem, uint32_t at, uint64_t value)
{
	memcpy(mem + at, &value, sizeof(value));
}

static void put_table_register(uint8_t *mem, uint32_t at, uint16_t limit, uint64_t base)
{
	memcpy(mem + at, &limit, sizeof(limit));
	memcpy(mem + at + 2, &base, sizeof(base));
}

static void fill_memory(uint8_t *mem)
{
	uint64_t handler = AT_CODE64 + (uint64_t)(probe_iret - probe_code64);

	memcpy(mem + AT_CODE16, probe_code16, (size_t)(probe_code16_end - probe_code16));
	memcpy(mem + AT_CODE64, probe_code64, (size_t)(probe_code64_end - probe_code64));
	put64(mem, AT_PML4, AT_PDPT | 3); /* present, writable */
	put64(mem, AT_PDPT, AT_PD | 3);
	put64(mem, AT_PD, 0x83);		      /* the first 2 MiB, one page */
	put64(mem, AT_GDT + 8, 0x00af9b000000ffffu);  /* 64-bit code */
	put64(mem, AT_GDT + 16, 0x00cf93000000ffffu); /* data */
	put64(mem, AT_IDT + 3 * 16,
	      handler | 8u << 16 | 0x8e00ull << 32); /* breakpoint: interrupt gate */
	put_table_register(mem, AT_GDTR, 23, AT_GDT);
	put_table_register(mem, AT_IDTR, 16 * 16 - 1, AT_IDT);
}

static int guest_new(struct guest *g)
{
	struct kvm_userspace_memory_region region = {.memory_size = MEM_SIZE};
	int size;

	g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0)
		return -errno;
	g->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->mem == MAP_FAILED)
		return -errno;
	fill_memory(g->mem);
	region.userspace_addr = (uintptr_t)g->mem;
	if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return -errno;
	g->cpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	size = ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (g->cpu < 0 || size < (int)sizeof(*g->run))
		return g->cpu < 0 ? -errno : -EINVAL;
	g->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, g->cpu, 0);
	return g->run == MAP_FAILED ? -errno : 0;
}

/* Give the guest the processor that the host has: without a CPUID, long mode is refused. */
static int set_cpuid(struct guest *g)
{
	_Alignas(struct kvm_cpuid2) char
	    room[sizeof(struct kvm_cpuid2) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2)] = {0};
	struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)room;

	cpuid->nent = CPUID_ENTRIES;
	if (ioctl(g->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0 ||
	    ioctl(g->cpu, KVM_SET_CPUID2, cpuid) < 0)
		return -errno;
	return 0;
}

static int enter_real_mode(struct guest *g)
{
	struct kvm_regs regs = {.rip = AT_CODE16, .rflags = 2, .rcx = PROBE_REAL_INSTRUCTIONS / 2};
	struct kvm_sregs s;

	if (ioctl(g->cpu, KVM_GET_SREGS, &s) < 0)
		return -errno;
	s.cs.base = 0;
	s.cs.selector = 0;
	if (ioctl(g->cpu, KVM_SET_SREGS, &s) < 0 || ioctl(g->cpu, KVM_SET_REGS, &regs) < 0)
		return -errno;
	return 0;
}

/* An OUT is over only when the processor is entered again; do that without running on. */
static void complete_out(struct guest *g)
{
	g->run->immediate_exit = 1;
	(void)ioctl(g->cpu, KVM_RUN, 0); /* EINTR */
	g->run->immediate_exit = 0;
}

static int enter_long_mode(struct guest *g)
{
	struct kvm_regs regs = {
	    .rip = AT_CODE64,
	    .rflags = 2,
	    .rsp = AT_STACK,
	    .rbx = PROBE_PRIVILEGED_ROUNDS,
	    .rdi = PROBE_LOOP_INSTRUCTIONS / 2,
	};
	struct kvm_segment code = {
	    .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
	    .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_sregs s;

	if (ioctl(g->cpu, KVM_GET_SREGS, &s) < 0)
		return -errno;
	s.cr3 = AT_PML4;
	s.cr4 = 1 << 5;		      /* PAE */
	s.cr0 = 0x80000001u | 1 << 4; /* paging, protection; extension type */
	s.efer = 1 << 8 | 1 << 10;    /* long mode enabled and active */
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.gdt.base = AT_GDT;
	s.gdt.limit = 23;
	if (ioctl(g->cpu, KVM_SET_SREGS, &s) < 0 || ioctl(g->cpu, KVM_SET_REGS, &regs) < 0)
		return -errno;
	return 0;
}

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Run until the guest writes `expected` to the port. */
static int run_until(struct guest *g, uint8_t expected, struct probe_result *r, int64_t *ret_us)
{
	int64_t start = now_us();

	for (;;) {
		if (ioctl(g->cpu, KVM_RUN, 0) < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			r->err = errno;
			return -errno;
		}
		if (g->run->exit_reason == KVM_EXIT_INTR)
			continue;
		if (g->run->exit_reason != KVM_EXIT_IO || g->run->io.port != OUT_PORT ||
		    ((uint8_t *)g->run)[g->run->io.data_offset] != expected) {
			r->exit_reason = (int)g->run->exit_reason;
			return -EPROTO;
		}
		*ret_us = now_us() - start;
		if (*ret_us == 0)
			*ret_us = 1;
		return 0;
	}
}

void probe_run(struct probe_result *r, void (*report)(void *ctx, const struct probe_result *r),
	       void *ctx)
{
	struct guest g = {.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), .vm = -1, .cpu = -1};
	int err;

	r->stage = PROBE_NO_DEVICE;
	r->err = errno;
	if (g.kvm < 0)
		goto out;
	r->stage = PROBE_NO_VM;
	err = guest_new(&g);
	if (err == 0)
		err = set_cpuid(&g);
	r->err = -err;
	if (err < 0)
		goto out;

	r->stage = PROBE_REAL_MODE;
	report(ctx, r);
	r->err = -enter_real_mode(&g);
	if (r->err != 0 || run_until(&g, OUT_REAL, r, &r->real_mode_us) < 0)
		goto out;
	r->stage = PROBE_PRIVILEGED;
	report(ctx, r);
	complete_out(&g);
	r->err = -enter_long_mode(&g);
	if (r->err != 0 || run_until(&g, OUT_PRIVILEGED, r, &r->privileged_us) < 0)
		goto out;
	r->stage = PROBE_LOOP;
	report(ctx, r);
	if (run_until(&g, OUT_LOOP, r, &r->loop_us) == 0)
		r->stage = PROBE_DONE;
out:
	report(ctx, r);
	/* The process ends here, and with it the guest. */
}

#else

void probe_run(struct probe_result *r, void (*report)(void *ctx, const struct probe_result *r),
	       void *ctx)
{
	r->stage = PROBE_NO_DEVICE;
	r->err = ENOSYS;
	report(ctx, r);
}

#endif
