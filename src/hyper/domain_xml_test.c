/* SPDX-License-Identifier: Apache-2.0 */
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/kvm_priv.h"
#include "os/file.h"

static const struct hyper_machine machine = {
    .name = "mallee-ab12-i-0123456789abcdef0",
    .instance_id = "i-0123456789abcdef0",
    .uuid = "ec2f00d1-2345-4678-8abc-0123456789ab",
    .vcpus = 2,
    .memory_mib = 1024,
    .root_path = "/var/lib/mallee/nc/instances/i-0123456789abcdef0/root.raw",
    .tap = "mltab12cdef0",
    .mac = "02:00:0a:01:00:05",
    .console_path = "/var/lib/mallee/nc/instances/i-0123456789abcdef0/console.log",
    .uid = 1900004097,
    .gid = 1900004097,
};

static bool yes(const char *path)
{
	return true;
}

static bool no(const char *path)
{
	return false;
}

/* The golden files are what was looked at with `virsh define --validate`. MALLEE_UPDATE_GOLDEN=1
 * writes them anew. */
static void assert_golden(const char *name, const struct buf *xml)
{
	_cleanup_(freep) char *path = NULL, *want = NULL;
	size_t len;

	assert_true(asprintf(&path, "%s/%s", GOLDEN_DIR, name) > 0);
	if (getenv("MALLEE_UPDATE_GOLDEN"))
		assert_int_equal(file_write_atomic(path, xml->data, xml->len, 0644), 0);
	assert_int_equal(file_read(path, 1 << 20, &want, &len), 0);
	assert_string_equal(xml->data, want);
}

static void test_golden(void **state)
{
	struct buf xml = BUF_INIT;
	struct error e = {0};

	assert_int_equal(kvm_domain_xml(&machine, HYPER_ACCEL_TCG, yes, &xml, &e), 0);
	assert_golden("domain-tcg.xml", &xml);
	buf_reset(&xml);
	assert_int_equal(kvm_domain_xml(&machine, HYPER_ACCEL_KVM, no, &xml, &e), 0);
	assert_golden("domain-kvm-buffered.xml", &xml);
	buf_done(&xml);
}

static const struct hyper_disk disks[] = {
    {.kind = HYPER_DISK_VHOST_USER,
     .path = "/var/lib/mallee/nc/instances/i-0123456789abcdef0/vol0fedcba9876543210.sock",
     .serial = "vol0fedcba9876543210",
     .queues = 2,
     .boot = true},
    {.kind = HYPER_DISK_VHOST_USER,
     .path = "/var/lib/mallee/nc/instances/i-0123456789abcdef0/vol0123456789abcdef0.sock",
     .serial = "vol0123456789abcdef0",
     .slot = 0},
    {.kind = HYPER_DISK_FILE,
     .path = "/var/lib/mallee/nc/instances/i-0123456789abcdef0/ephemeral0.raw",
     .serial = "ephemeral0",
     .slot = 15},
};

static struct hyper_machine machine_of(const struct hyper_disk *list, size_t count)
{
	struct hyper_machine m = machine;

	m.root_path = NULL;
	m.disks = list;
	m.disk_count = count;
	return m;
}

static void test_golden_disks(void **state)
{
	struct hyper_machine m = machine_of(disks, ARRAY_SIZE(disks));
	struct buf xml = BUF_INIT;
	struct error e = {0};

	assert_int_equal(kvm_domain_xml(&m, HYPER_ACCEL_TCG, yes, &xml, &e), 0);
	assert_golden("domain-disks.xml", &xml);
	buf_reset(&xml);
	assert_int_equal(kvm_disk_xml(&disks[2], false, &xml, &e), 0);
	assert_golden("disk.xml", &xml);
	buf_done(&xml);
}

static void test_disk_ids(void **state)
{
	static const char *const bad[] = {"virtio-disk0",  "ua-disk16-vol", "ua-disk-1-vol",
					  "ua-disk-vol",   "ua-other-vol",  "ua-bootvol",
					  "ua-disk1x-vol", "",		    "net0"};
	char id[KVM_DISK_ID_BYTES];
	struct hyper_disk d;

	kvm_disk_id(&disks[0], id);
	assert_string_equal(id, "ua-boot-vol0fedcba9876543210");
	assert_int_equal(kvm_disk_id_parse(id, &d), 0);
	assert_true(d.boot);
	assert_string_equal(d.serial, disks[0].serial);
	kvm_disk_id(&disks[2], id);
	assert_string_equal(id, "ua-disk15-ephemeral0");
	assert_int_equal(kvm_disk_id_parse(id, &d), 0);
	assert_false(d.boot);
	assert_int_equal(d.slot, 15);
	assert_string_equal(d.serial, "ephemeral0");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(kvm_disk_id_parse(bad[i], &d), -EINVAL);
}

static void assert_refused(const struct hyper_machine *m)
{
	struct buf xml = BUF_INIT;
	struct error e = {0};

	assert_int_equal(kvm_domain_xml(m, HYPER_ACCEL_TCG, yes, &xml, &e), -EINVAL);
	assert_string_equal(e.code, "InvalidParameterValue");
	buf_done(&xml);
}

static void test_disks_that_cannot_be(void **state)
{
	static const struct hyper_disk ok = {.path = "/d", .serial = "vol-1"};
	struct hyper_disk bad[] = {ok, ok, ok, ok, ok, ok, ok, ok};
	struct hyper_machine m = machine_of(NULL, 0);
	char path[200] = "/";

	assert_refused(&m); /* nothing to boot from */
	m = machine_of(disks, 1);
	m.root_path = "/two";
	assert_refused(&m);
	bad[0].slot = -1;
	bad[1].slot = HYPER_DISK_SLOTS;
	bad[2].serial = "vol0123456789abcdef01";
	bad[3].serial = "a b";
	bad[4].serial = NULL;
	bad[5].path = "relative";
	bad[6].queues = 17;
	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	bad[7].path = path;
	bad[7].kind = HYPER_DISK_VHOST_USER;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		m = machine_of(&bad[i], 1);
		m.root_path = "/r";
		assert_refused(&m);
	}
	m = machine_of((struct hyper_disk[]){ok, ok}, 2); /* the serial, and the slot, twice */
	m.root_path = "/r";
	assert_refused(&m);
	m = machine_of((struct hyper_disk[]){ok, {.path = "/e", .serial = "vol-2"}}, 2);
	m.root_path = "/r";
	assert_refused(&m);
}

static char *xpath(xmlDocPtr doc, const char *expr)
{
	xmlXPathContextPtr ctx = xmlXPathNewContext(doc);
	xmlXPathObjectPtr obj = xmlXPathEval((const xmlChar *)expr, ctx);
	xmlChar *text = xmlXPathCastToString(obj);
	char *copy = strdup((const char *)text);

	xmlFree(text);
	xmlXPathFreeObject(obj);
	xmlXPathFreeContext(ctx);
	return copy;
}

static void assert_xpath(xmlDocPtr doc, const char *expr, const char *want)
{
	_cleanup_(freep) char *got = xpath(doc, expr);

	assert_string_equal(got, want);
}

static void test_hostile_names_stay_text(void **state)
{
	struct hyper_machine m = machine;
	struct buf xml = BUF_INIT;
	struct error e = {0};
	xmlDocPtr doc;

	m.root_path = "/srv/a'/><disk type=\"block\">&amp;<!--/r\xc3\xb6ot.raw";
	assert_int_equal(kvm_domain_xml(&m, HYPER_ACCEL_TCG, yes, &xml, &e), 0);
	doc = xmlReadMemory(xml.data, (int)xml.len, NULL, NULL, XML_PARSE_NONET);
	assert_non_null(doc);
	assert_xpath(doc, "string(/domain/devices/disk/source/@file)", m.root_path);
	assert_xpath(doc, "count(/domain/devices/disk)", "1");
	xmlFreeDoc(doc);
	buf_done(&xml);
}

static void test_what_xml_cannot_hold_is_refused(void **state)
{
	static const char *const bad[] = {"/a\nb", "/a\x01", "/\xff\xfe", "/\x7f"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct hyper_machine m = machine;
		struct buf xml = BUF_INIT;
		struct error e = {0};

		m.console_path = bad[i];
		assert_int_equal(kvm_domain_xml(&m, HYPER_ACCEL_TCG, yes, &xml, &e), -EINVAL);
		assert_string_equal(e.code, "InvalidParameterValue");
		buf_done(&xml);
	}
}

/* Every device has an address on a root port of its own, and sixteen ports are free. */
static void test_pci_tree(void **state)
{
	struct buf xml = BUF_INIT;
	struct error e = {0};
	xmlDocPtr doc;

	assert_int_equal(kvm_domain_xml(&machine, HYPER_ACCEL_KVM, yes, &xml, &e), 0);
	doc = xmlReadMemory(xml.data, (int)xml.len, NULL, NULL, XML_PARSE_NONET);
	assert_non_null(doc);
	assert_xpath(doc, "count(//controller[@model='pcie-root-port'])", "20");
	assert_xpath(doc, "count(//controller[@model='pcie-root-port']/address[@bus='0x00'])",
		     "20");
	assert_xpath(doc, "count(//devices/*[not(self::controller)]/address[@type='pci'])", "4");
	assert_xpath(doc, "count(//disk/address[@bus='0x01'] | //interface/address[@bus='0x02'])",
		     "2");
	assert_xpath(doc, "count(//rng/address[@bus='0x03'] | //memballoon/address[@bus='0x04'])",
		     "2");
	assert_xpath(doc, "count(//controller/address[@function='0x0' and @multifunction='on'])",
		     "3");
	assert_xpath(doc, "string(/domain/uuid) = string(//sysinfo/system/entry[@name='uuid'])",
		     "true");
	assert_xpath(doc, "string(/domain/uuid) = string(//sysinfo/system/entry[@name='serial'])",
		     "true");
	xmlFreeDoc(doc);
	buf_done(&xml);
}

static void test_states(void **state)
{
	static const struct {
		int state, reason;
		enum hyper_state want;
		enum hyper_off_reason want_reason;
	} rows[] = {
	    {VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_BOOTED, HYPER_RUNNING, HYPER_OFF_UNKNOWN},
	    {VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_IOERROR, HYPER_PAUSED, HYPER_OFF_UNKNOWN},
	    {VIR_DOMAIN_SHUTDOWN, 0, HYPER_SHUTTING_DOWN, HYPER_OFF_UNKNOWN},
	    {VIR_DOMAIN_CRASHED, 0, HYPER_OFF, HYPER_OFF_CRASHED},
	    {VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_SHUTDOWN, HYPER_OFF, HYPER_OFF_GUEST},
	    {VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_DESTROYED, HYPER_OFF, HYPER_OFF_US},
	    {VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_CRASHED, HYPER_OFF, HYPER_OFF_CRASHED},
	    {VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_FAILED, HYPER_OFF, HYPER_OFF_CRASHED},
	    {VIR_DOMAIN_SHUTOFF, VIR_DOMAIN_SHUTOFF_UNKNOWN, HYPER_OFF, HYPER_OFF_UNKNOWN},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct hyper_status st = {.off_reason = HYPER_OFF_GUEST};

		kvm_translate_state(rows[i].state, rows[i].reason, &st);
		assert_int_equal(st.state, rows[i].want);
		assert_int_equal(st.off_reason, rows[i].want_reason);
	}
}

static void test_names(void **state)
{
	assert_true(kvm_name_is_ours("ab12", "mallee-ab12-i-0123456789abcdef0"));
	assert_false(kvm_name_is_ours("ab12", "mallee-ab123-i-0123456789abcdef0"));
	assert_false(kvm_name_is_ours("ab12", "mallee-ab1"));
	assert_false(kvm_name_is_ours("ab12", "debian12"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_golden),
	    cmocka_unit_test(test_golden_disks),
	    cmocka_unit_test(test_disk_ids),
	    cmocka_unit_test(test_disks_that_cannot_be),
	    cmocka_unit_test(test_hostile_names_stay_text),
	    cmocka_unit_test(test_what_xml_cannot_hold_is_refused),
	    cmocka_unit_test(test_pci_tree),
	    cmocka_unit_test(test_states),
	    cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
