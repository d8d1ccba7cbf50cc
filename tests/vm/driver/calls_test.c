/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every call of /dev/viaduct with every bad input; what a vNIC costs and when it goes; who may have which filter. Runs
 * in the virtual machine (driver_test.py), as root.
 */
#include "device.h"

#define PORT 7000

static const struct {
	unsigned long what;
	uint32_t size;
} calls[] = {
    {VIADUCT_IOC_ABI, sizeof(struct viaduct_abi)},           {VIADUCT_IOC_ALLOC, sizeof(struct viaduct_alloc)},
    {VIADUCT_IOC_INFO, sizeof(struct viaduct_info)},         {VIADUCT_IOC_FILTER_ADD, sizeof(struct viaduct_filter)},
    {VIADUCT_IOC_FILTER_DEL, sizeof(struct viaduct_filter)}, {VIADUCT_IOC_STATS, sizeof(struct viaduct_stats)},
    {VIADUCT_IOC_EVENTFD, sizeof(struct viaduct_eventfd)},
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

static void the_driver_says_what_it_can(void **state)
{
	struct viaduct_abi abi = {.size = sizeof(abi)};
	int fd = open_device();

	(void)state;
	assert_int_equal(call(fd, VIADUCT_IOC_ABI, &abi), 0);
	assert_int_equal(abi.version, VIADUCT_ABI_VERSION);
	assert_true(abi.features & VIADUCT_FEAT_CSUM);
	assert_int_equal(abi.bufs_max, 2048);
	close(fd);
}

static void a_struct_that_is_too_short_is_refused(void **state)
{
	struct device d = make_device(IFACE);

	(void)state;
	for (size_t i = 0; i < CALLS; i++)
		for (uint32_t size = 0; size < calls[i].size; size++) {
			uint32_t buf[64] = {size};

			assert_int_equal(call(d.fd, calls[i].what, buf), -EINVAL);
		}
	end_device(&d);
}

static void a_newer_struct_is_good_while_the_rest_is_zero(void **state)
{
	struct device d = make_device(IFACE);

	(void)state;
	for (size_t i = 0; i < CALLS; i++) {
		uint32_t buf[64] = {sizeof(buf)};

		buf[63] = 1;
		assert_int_equal(call(d.fd, calls[i].what, buf), -E2BIG);
		buf[63] = 0;
		assert_int_not_equal(call(d.fd, calls[i].what, buf), -E2BIG);
		buf[0] = 1u << 20;
		assert_int_equal(call(d.fd, calls[i].what, buf), -E2BIG);
	}
	end_device(&d);
}

static void a_bad_pointer_is_efault(void **state)
{
	struct device d = make_device(IFACE);
	long page = sysconf(_SC_PAGESIZE);
	uint8_t *mem = mmap(NULL, 2 * (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	munmap(mem + page, (size_t)page);
	for (size_t i = 0; i < CALLS; i++) {
		uint32_t *cut = (uint32_t *)(void *)(mem + page - 4); /* the struct goes on where nothing is */

		*cut = calls[i].size;
		assert_int_equal(call(d.fd, calls[i].what, NULL), -EFAULT);
		assert_int_equal(call(d.fd, calls[i].what, cut), -EFAULT);
		assert_int_equal(call(d.fd, calls[i].what, (void *)(uintptr_t)-8), -EFAULT);
	}
	munmap(mem, (size_t)page);
	end_device(&d);
}

static void an_unknown_call_is_enotty(void **state)
{
	struct device d = make_device(IFACE);
	uint32_t buf[64] = {sizeof(buf)};

	(void)state;
	for (unsigned int nr = 8; nr < 256; nr++)
		assert_int_equal(call(d.fd, _IO(VIADUCT_IOC_MAGIC, nr), buf), -ENOTTY);
	for (size_t i = 0; i < CALLS; i++) {
		assert_int_equal(call(d.fd, _IOW(VIADUCT_IOC_MAGIC, _IOC_NR(calls[i].what), uint64_t), buf), -ENOTTY);
		assert_int_equal(call(d.fd, _IO('T', _IOC_NR(calls[i].what)), buf), -ENOTTY);
	}
	assert_int_equal(call(d.fd, VIADUCT_IOC_KICK, buf), -EINVAL);
	end_device(&d);
}

static void nothing_works_before_alloc(void **state)
{
	int fd = open_device();
	struct pollfd p = {.fd = fd, .events = POLLIN};

	(void)state;
	for (size_t i = 0; i < CALLS; i++) {
		uint32_t buf[64] = {calls[i].size};

		if (calls[i].what != VIADUCT_IOC_ABI && calls[i].what != VIADUCT_IOC_ALLOC)
			assert_int_equal(call(fd, calls[i].what, buf), -ENXIO);
	}
	assert_int_equal(call(fd, VIADUCT_IOC_KICK, NULL), -ENXIO);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(poll(&p, 1, 0), 1);
	assert_true(p.revents & POLLERR);
	close(fd);
}

static void alloc_refuses_what_is_out_of_range(void **state)
{
	int fd = open_device();
	struct viaduct_alloc good = alloc_of(IFACE), a;

	(void)state;
#define REFUSED(field, value, error)                                                                                   \
	(a = good, a.field = (value), assert_int_equal(call(fd, VIADUCT_IOC_ALLOC, &a), error))
	REFUSED(flags, 2, -EINVAL);
	REFUSED(tx_bufs, 0, -EINVAL);
	REFUSED(tx_bufs, 15, -EINVAL);
	REFUSED(tx_bufs, 2049, -EINVAL);
	REFUSED(tx_bufs, UINT32_MAX, -EINVAL);
	REFUSED(rx_bufs, 0, -EINVAL);
	REFUSED(rx_bufs, 15, -EINVAL);
	REFUSED(rx_bufs, 2049, -EINVAL);
	REFUSED(rx_bufs, UINT32_MAX, -EINVAL);
	REFUSED(buf_size, 0, -EINVAL);
	REFUSED(buf_size, 1024, -EINVAL);
	REFUSED(buf_size, 2049, -EINVAL);
	REFUSED(buf_size, 2080, -EINVAL);
	REFUSED(buf_size, 32768, -EINVAL);
	REFUSED(buf_size, UINT32_MAX, -EINVAL);
	REFUSED(reserved, 1, -EINVAL);
	REFUSED(evq_entries, 1, -EINVAL);
	REFUSED(evq_entries, 128, -EINVAL); /* too short for all buffers and a few changes of the link */
	REFUSED(evq_entries, 257, -EINVAL);
	REFUSED(evq_entries, 32768, -EINVAL);
	REFUSED(ifindex, 0, -ENODEV);
	REFUSED(ifindex, 99999, -ENODEV);
	REFUSED(ifindex, UINT32_MAX, -ENODEV);
	REFUSED(ifindex, if_nametoindex("lo"), -EOPNOTSUPP);
#undef REFUSED
	a = good;
	assert_int_equal(call(fd, VIADUCT_IOC_ALLOC, &a), 0);
	a = good;
	assert_int_equal(call(fd, VIADUCT_IOC_ALLOC, &a), -EBUSY);
	close(fd);
}

static void an_interface_of_another_namespace_is_not_to_be_had(void **state)
{
	struct viaduct_alloc a = alloc_of(IFACE);
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd;

	(void)state;
	enter_namespace("/run/netns/peer");
	fd = open_device(); /* the opener's namespace counts, whoever calls */
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	close(here);
	a.ifindex += 1000; /* v1's index there is the one that driver_test.py gave it: none of ours */
	assert_int_equal(call(fd, VIADUCT_IOC_ALLOC, &a), -ENODEV);
	close(fd);
}

/* --- memory --- */

static void the_region_is_what_the_header_says(void **state)
{
	struct device d = make_device(IFACE);
	const struct vnic_end *tx = &d.header->end[0], *rx = &d.header->end[1];

	(void)state;
	assert_int_equal(d.header->magic, VNIC_MAGIC);
	assert_int_equal(d.header->version, VNIC_VERSION);
	assert_int_equal(d.header->total_size, d.len);
	assert_int_equal(d.header->ends, 1);
	assert_int_equal(tx->tx_entries, BUFS);
	assert_true(tx->evq_entries >= 2 * BUFS);
	assert_int_equal(tx->buf_count, BUFS);
	assert_int_equal(rx->buf_count, BUFS);
	assert_true(tx->bufs_off + (uint64_t)tx->buf_count * tx->buf_size <= rx->bufs_off);
	assert_true(rx->bufs_off + (uint64_t)rx->buf_count * rx->buf_size <= d.len);
	for (size_t i = d.header->header_size; i < d.len; i++) /* nothing of others' memory shows */
		assert_int_equal(d.map[i], 0);
	end_device(&d);
}

static void only_the_region_can_be_mapped_and_only_shared(void **state)
{
	struct device d = make_device(IFACE);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *part;

	(void)state;
	assert_ptr_equal(mmap(NULL, d.len, PROT_READ | PROT_WRITE, MAP_PRIVATE, d.fd, 0), MAP_FAILED);
	assert_ptr_equal(mmap(NULL, d.len, PROT_READ | PROT_EXEC, MAP_SHARED, d.fd, 0), MAP_FAILED);
	assert_ptr_equal(mmap(NULL, d.len + page, PROT_READ, MAP_SHARED, d.fd, 0), MAP_FAILED);
	assert_ptr_equal(mmap(NULL, d.len, PROT_READ, MAP_SHARED, d.fd, (off_t)page), MAP_FAILED);
	assert_ptr_equal(mmap(NULL, page, PROT_READ, MAP_SHARED, d.fd, (off_t)d.len), MAP_FAILED);
	assert_ptr_equal(mmap(NULL, page, PROT_READ, MAP_SHARED, d.fd, (off_t)1 << 40), MAP_FAILED);
	part = mmap(NULL, page, PROT_READ, MAP_SHARED, d.fd, 0);
	assert_ptr_not_equal(part, MAP_FAILED);
	assert_int_equal(mprotect(part, page, PROT_READ | PROT_EXEC), -1);
	assert_ptr_equal(mremap(part, page, 2 * page, MREMAP_MAYMOVE), MAP_FAILED);
	munmap(part, page);
	end_device(&d);
}

static void a_vnic_lives_as_long_as_a_mapping_or_a_descriptor(void **state)
{
	int before = device_count(), status;
	struct device d = make_device(IFACE);
	int copy = dup(d.fd);
	pid_t child;

	(void)state;
	assert_int_equal(device_count(), before + 1);
	close(d.fd);
	close(copy);
	assert_int_equal(device_count(), before + 1);
	child = fork();
	if (child == 0) {
		usleep(100000);
		_exit(d.map[0] != (VNIC_MAGIC & 0xff));
	}
	munmap(d.map, d.len);
	assert_int_equal(device_count(), before + 1);
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(device_count(), before);
}

static int allocate_under_a_limit(void *arg)
{
	const struct rlimit small = {.rlim_cur = 64 << 10, .rlim_max = 1 << 20};
	struct rlimit large = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
	struct viaduct_alloc a = alloc_of(IFACE);
	int fd = open(VIADUCT_DEVICE, O_RDWR), second = open(VIADUCT_DEVICE, O_RDWR);

	(void)arg;
	if (fd < 0 || second < 0)
		return 1;
	setrlimit(RLIMIT_MEMLOCK, &small);
	if (call(fd, VIADUCT_IOC_ALLOC, &a) != -ENOBUFS)
		return 2;
	setrlimit(RLIMIT_MEMLOCK, &large);
	for (int i = 0; i < 50; i++) { /* each is given back */
		a = alloc_of(IFACE);
		if (call(fd, VIADUCT_IOC_ALLOC, &a) != 0)
			return 3;
		close(fd);
		fd = open(VIADUCT_DEVICE, O_RDWR);
	}
	a = alloc_of(IFACE);
	if (call(fd, VIADUCT_IOC_ALLOC, &a) != 0)
		return 4;
	a = alloc_of(IFACE);
	for (a.rx_bufs = 512; call(second, VIADUCT_IOC_ALLOC, &a) == 0;) /* the user's, not the file's */
		return 5;
	return 0;
}

static void a_user_locks_no_more_memory_than_he_may(void **state)
{
	(void)state;
	assert_int_equal(as_user(NOBODY, allocate_under_a_limit, NULL), 0);
}

static int allocate_many(void *arg)
{
	struct viaduct_abi abi = {.size = sizeof(abi)};
	const struct rlimit *limit = arg;
	struct viaduct_alloc a = alloc_of(IFACE);
	int fd = open(VIADUCT_DEVICE, O_RDWR);
	uint32_t n = 0;

	(void)limit;
	call(fd, VIADUCT_IOC_ABI, &abi);
	for (a.rx_bufs = a.tx_bufs = 16; n < 1000 && call(fd, VIADUCT_IOC_ALLOC, &a) == 0; n++)
		fd = open(VIADUCT_DEVICE, O_RDWR);
	return n == abi.vnics_max && call(fd, VIADUCT_IOC_ALLOC, &a) == -EUSERS ? 0 : 1;
}

static void a_user_has_no_more_vnics_than_that(void **state)
{
	struct rlimit all = {.rlim_cur = 1 << 30, .rlim_max = 1 << 30};

	(void)state;
	setrlimit(RLIMIT_MEMLOCK, &all);
	assert_int_equal(as_user(NOBODY, allocate_many, &all), 0);
	assert_int_equal(device_count(), 0);
}

/* --- filters --- */

static void a_filter_must_make_sense(void **state)
{
	struct device d = make_device(IFACE);
	int fd = bound_socket(SOCK_DGRAM, OURS, PORT, false);
	struct viaduct_filter good = filter_of(IPPROTO_UDP, PORT, fd), f;

	(void)state;
#define REFUSED(field, value, error) (f = good, f.field = (value), assert_int_equal(add_filter(&d, f), error))
	REFUSED(flags, 1, -EINVAL);
	REFUSED(reserved, 1, -EINVAL);
	REFUSED(proto, 0, -EINVAL);
	REFUSED(proto, IPPROTO_ICMP, -EINVAL);
	REFUSED(family, 0, -EINVAL);
	REFUSED(family, 6, -EINVAL); /* the address is one of IPv4 */
	REFUSED(family, 10, -EINVAL);
	REFUSED(local_port, 0, -EINVAL);
	REFUSED(remote_port, 5, -EINVAL); /* without a remote address */
	REFUSED(remote[15], 5, -EINVAL);  /* without a remote port */
	REFUSED(fd, 1000, -EBADF);
	REFUSED(fd, d.fd, -ENOTSOCK);
#undef REFUSED
	f = good;
	put_address(f.local, "239.1.1.1");
	assert_int_equal(add_filter(&d, f), -EOPNOTSUPP);
	assert_int_equal(del_filter(&d, good), -ENOENT);
	assert_int_equal(add_filter(&d, good), 0);
	assert_int_equal(add_filter(&d, good), -EEXIST);
	assert_int_equal(del_filter(&d, good), 0);
	assert_int_equal(del_filter(&d, good), -ENOENT);
	close(fd);
	end_device(&d);
}

/* Of a user without rights: his vNIC, and whether the filter was refused with that error. */
struct attempt {
	struct viaduct_filter filter;
	int fd, error;
	uint16_t bind_port; /* 0: the socket is fd */
	bool reuse;
};

static int try_filter(void *arg)
{
	struct attempt *t = arg;
	struct viaduct_alloc a = alloc_of(IFACE);
	int fd = open(VIADUCT_DEVICE, O_RDWR), sock = t->fd;

	a.tx_bufs = a.rx_bufs = 16;
	if (fd < 0 || call(fd, VIADUCT_IOC_ALLOC, &a) != 0)
		return 1;
	if (t->bind_port)
		sock = bound_socket(t->filter.proto == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM, OURS, t->bind_port,
				    t->reuse);
	t->filter.fd = sock;
	return call(fd, VIADUCT_IOC_FILTER_ADD, &t->filter) == t->error ? 0 : 2;
}

static void whoever_holds_the_port_may_have_it(void **state)
{
	struct attempt t = {.filter = filter_of(IPPROTO_TCP, PORT, -1), .bind_port = PORT};

	(void)state;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0);
	t.filter.proto = IPPROTO_UDP;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0);
	t.reuse = true;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0);
}

static void nobody_gets_a_port_that_his_socket_does_not_hold(void **state)
{
	struct attempt t = {.filter = filter_of(IPPROTO_TCP, PORT, -1), .fd = -1, .error = -EPERM};
	int tcp = bound_socket(SOCK_STREAM, OURS, PORT, false);

	(void)state;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0); /* no socket */
	t.fd = tcp;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0); /* root's, handed to him */
	t.bind_port = PORT + 1;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0); /* of another port */
	t.bind_port = 0;
	t.fd = peer_socket(SOCK_STREAM, PEER, PORT);
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0); /* in another namespace */
	close(t.fd);
	t.fd = bound_socket(SOCK_STREAM, "127.0.0.1", PORT, false);
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0); /* at another address */
	close(t.fd);
	t.filter.local_port = PORT + 2;
	t.bind_port = PORT + 2;
	put_address(t.filter.local, PEER);
	t.error = -EADDRNOTAVAIL;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0); /* not this machine's */
	close(tcp);
}

static void a_port_that_another_user_shares_is_nobodys(void **state)
{
	struct attempt t = {
	    .filter = filter_of(IPPROTO_TCP, PORT, -1), .error = -EADDRINUSE, .bind_port = PORT, .reuse = true};
	int tcp = bound_socket(SOCK_STREAM, OURS, PORT, true), udp = bound_socket(SOCK_DGRAM, OURS, PORT, true);

	(void)state;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0);
	t.filter.proto = IPPROTO_UDP;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0);
	close(tcp);
	close(udp);
	t.error = 0;
	assert_int_equal(as_user(NOBODY, try_filter, &t), 0);
}

static void two_vnics_have_no_port_in_common(void **state)
{
	struct device a = make_device(IFACE), b = make_device(IFACE);
	int fd = bound_socket(SOCK_STREAM, "0.0.0.0", PORT, false);
	struct viaduct_filter port = filter_of(IPPROTO_TCP, PORT, fd), flow = port, any = port;

	(void)state;
	flow.remote_port = 9;
	put_address(flow.remote, PEER);
	memset(any.local, 0, sizeof(any.local));
	assert_int_equal(add_filter(&a, port), 0);
	assert_int_equal(add_filter(&b, port), -EADDRINUSE);
	assert_int_equal(add_filter(&b, flow), -EADDRINUSE);
	assert_int_equal(del_filter(&b, port), -ENOENT);
	assert_int_equal(add_filter(&b, any), 0); /* what is left */
	flow.fd = -1;
	assert_int_equal(add_filter(&a, flow), 0);
	end_device(&a);
	assert_int_equal(add_filter(&b, port), 0);
	end_device(&b);
	close(fd);
}

static void a_filter_keeps_the_port_taken(void **state)
{
	struct device d = make_device(IFACE);
	int fd = bound_socket(SOCK_STREAM, OURS, PORT, false), other = bound_socket(SOCK_STREAM, NULL, 0, false);
	struct sockaddr_in a = address_of(OURS, PORT);

	(void)state;
	assert_int_equal(add_filter(&d, filter_of(IPPROTO_TCP, PORT, fd)), 0);
	close(fd);
	assert_int_equal(bind(other, (struct sockaddr *)&a, sizeof(a)), -1);
	end_device(&d);
	for (int i = 0; i < 100 && bind(other, (struct sockaddr *)&a, sizeof(a)) < 0; i++)
		usleep(10000);
	assert_int_equal(listen(other, 1), 0);
	a = (struct sockaddr_in){0};
	assert_int_equal(getsockname(other, (struct sockaddr *)&a, &(socklen_t){sizeof(a)}), 0);
	assert_int_equal(ntohs(a.sin_port), PORT);
	close(other);
}

static void an_eventfd_must_be_one(void **state)
{
	struct device d = make_device(IFACE);
	struct viaduct_eventfd e = {.size = sizeof(e), .fd = d.fd};

	(void)state;
	assert_int_equal(call(d.fd, VIADUCT_IOC_EVENTFD, &e), -EINVAL);
	e.fd = 1000;
	assert_int_equal(call(d.fd, VIADUCT_IOC_EVENTFD, &e), -EBADF);
	e.fd = -2;
	assert_int_equal(call(d.fd, VIADUCT_IOC_EVENTFD, &e), -EBADF);
	e.fd = -1;
	assert_int_equal(call(d.fd, VIADUCT_IOC_EVENTFD, &e), 0);
	end_device(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_driver_says_what_it_can),
	    cmocka_unit_test(a_struct_that_is_too_short_is_refused),
	    cmocka_unit_test(a_newer_struct_is_good_while_the_rest_is_zero),
	    cmocka_unit_test(a_bad_pointer_is_efault),
	    cmocka_unit_test(an_unknown_call_is_enotty),
	    cmocka_unit_test(nothing_works_before_alloc),
	    cmocka_unit_test(alloc_refuses_what_is_out_of_range),
	    cmocka_unit_test(an_interface_of_another_namespace_is_not_to_be_had),
	    cmocka_unit_test(the_region_is_what_the_header_says),
	    cmocka_unit_test(only_the_region_can_be_mapped_and_only_shared),
	    cmocka_unit_test(a_vnic_lives_as_long_as_a_mapping_or_a_descriptor),
	    cmocka_unit_test(a_user_locks_no_more_memory_than_he_may),
	    cmocka_unit_test(a_user_has_no_more_vnics_than_that),
	    cmocka_unit_test(a_filter_must_make_sense),
	    cmocka_unit_test(whoever_holds_the_port_may_have_it),
	    cmocka_unit_test(nobody_gets_a_port_that_his_socket_does_not_hold),
	    cmocka_unit_test(a_port_that_another_user_shares_is_nobodys),
	    cmocka_unit_test(two_vnics_have_no_port_in_common),
	    cmocka_unit_test(a_filter_keeps_the_port_taken),
	    cmocka_unit_test(an_eventfd_must_be_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
