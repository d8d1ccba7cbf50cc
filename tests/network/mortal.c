/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs that kills_test.py kills: mortal LEDGER client|server|workers ADDRESS PORT FIRST COUNT.
 *
 * A client opens COUNT connections, numbered from FIRST on; a server (workers: two processes on one listener) takes
 * what comes. What each end does with a connection is its plan in the ledger, a file that all have mapped; what came of
 * it, each end notes there at once, so it is known also of those who died. A connection's bytes follow from its number
 * and their place; the client's first four are the number. When the ledger says so, both ends stop sending, send FIN,
 * and read to the end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE 60000u
#define CONNS 256u
#define NAME 4u      /* bytes that say which connection it is */
#define TURN_MS 2    /* how often those are looked at that poll would not tell of */
#define PATIENCE 40u /* s: then it says that it hangs, by not ending well */

/* end.plan */
enum { SENDS = 1, READS = 2, SHUTS = 4, LINGERS = 8, ABORTS = 16, SLOW = 32 };
/* end.state */
enum { NOT_YET, OPEN, OVER };
/* end.how */
enum { UNKNOWN, ENDED, RESET, FAILED };

struct end {
	uint32_t plan, quota; /* quota: bytes to send; 0 as many as can be */
	uint64_t sent, read, acked;
	uint32_t state, how, err, wrong, shut, pid;
};

struct connection {
	struct end end[2]; /* the client's, the server's */
};

struct ledger {
	uint32_t over;    /* 1: come to an end; 2: no more clients come */
	uint32_t unnamed; /* connections that servers have and whose names did not come */
	struct connection connection[];
};

struct conn {
	int fd;
	bool connecting, deaf, mute; /* deaf: the end has come; mute: ours was sent, or can't be */
	uint32_t number, have;       /* have: bytes of the name */
	uint8_t name[NAME];
	struct end *me;
};

static struct ledger *ledger;
static uint32_t most; /* connections that the ledger has room for */
static int side;
static struct conn conns[CONNS];
static uint32_t count;
static int listener = -1;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint8_t byte_at(uint32_t number, int from, uint64_t at)
{
	if (!from && at < NAME)
		return (uint8_t)(number >> 8 * at);
	return (uint8_t)((at + number * 7 + (uint64_t)from * 3) * 167 >> 3);
}

static uint32_t over(void)
{
	return __atomic_load_n(&ledger->over, __ATOMIC_RELAXED);
}

/* --- one connection --- */

static void note_end(struct conn *c, uint32_t how, int err)
{
	c->deaf = true;
	if (!c->me || c->me->how)
		return;
	c->me->err = (uint32_t)err;
	__atomic_store_n(&c->me->how, how, __ATOMIC_RELAXED);
}

static void note_error(struct conn *c, int err)
{
	c->mute = true;
	note_end(c, err == ECONNRESET || err == EPIPE ? RESET : FAILED, err);
}

static void set_linger(int fd, int on, int seconds)
{
	struct linger l = {on, seconds};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

/* It is this one. */
static void know(struct conn *c, uint32_t number)
{
	c->number = number;
	c->me = &ledger->connection[number].end[side];
	c->me->pid = (uint32_t)getpid();
	c->me->state = OPEN;
	if (c->me->plan & ABORTS)
		set_linger(c->fd, 1, 0);
	if (c->me->plan & LINGERS)
		set_linger(c->fd, 1, 5);
}

static void read_name(struct conn *c)
{
	ssize_t n = recv(c->fd, c->name + c->have, NAME - c->have, 0);
	uint32_t number;

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			c->deaf = c->mute = true;
		return;
	}
	c->have += (uint32_t)n;
	if (c->have < NAME)
		return;
	number = c->name[0] | (uint32_t)c->name[1] << 8 | (uint32_t)c->name[2] << 16;
	if (number >= most || c->name[3])
		exit(3);
	know(c, number);
	c->me->read = NAME;
}

static void read_some(struct conn *c)
{
	static uint8_t buf[PIECE];
	size_t room = c->me->plan & SLOW && !over() ? 500 : sizeof(buf);
	ssize_t n = recv(c->fd, buf, room, 0);

	if (n < 0 && errno != EAGAIN)
		note_error(c, errno);
	if (n == 0)
		note_end(c, ENDED, 0);
	for (ssize_t i = 0; i < n; i++)
		c->me->wrong += buf[i] != byte_at(c->number, 1 - side, c->me->read + (uint64_t)i);
	if (n > 0)
		__atomic_store_n(&c->me->read, c->me->read + (uint64_t)n, __ATOMIC_RELAXED);
}

static bool may_send(const struct conn *c)
{
	if (c->mute || !c->me || over())
		return false;
	return (c->me->plan & SENDS && (!c->me->quota || c->me->sent < c->me->quota)) || (!side && c->me->sent < NAME);
}

static void send_some(struct conn *c)
{
	static uint8_t buf[PIECE];
	uint64_t left = c->me->quota && c->me->quota > c->me->sent ? c->me->quota - c->me->sent : PIECE;
	size_t len = 1 + (size_t)rand() % (rand() % 4 ? 1500 : PIECE);
	ssize_t n;

	if (!(c->me->plan & SENDS))
		left = NAME - c->me->sent;
	len = len < left ? len : left;
	for (size_t i = 0; i < len; i++)
		buf[i] = byte_at(c->number, side, c->me->sent + i);
	n = send(c->fd, buf, len, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN)
		note_error(c, errno);
	if (n > 0)
		__atomic_store_n(&c->me->sent, c->me->sent + (uint64_t)n, __ATOMIC_RELAXED);
}

static void note_acked(struct conn *c)
{
	int left = 0;

	if (!ioctl(c->fd, SIOCOUTQ, &left) && (uint64_t)left <= c->me->sent)
		__atomic_store_n(&c->me->acked, c->me->sent - (uint64_t)left, __ATOMIC_RELAXED);
}

/* Our end of the stream, when it is planned or all comes to an end. */
static void shut(struct conn *c)
{
	bool planned = c->me && c->me->plan & SHUTS && c->me->quota && c->me->sent >= c->me->quota;

	if (c->mute || c->connecting || !(planned || over()))
		return;
	c->mute = true;
	if (c->me)
		__atomic_store_n(&c->me->shut, 1, __ATOMIC_RELAXED);
	shutdown(c->fd, SHUT_WR);
}

static void connected(struct conn *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	c->connecting = false;
	if (err) {
		c->deaf = c->mute = true;
		ledger->connection[c->number].end[side].err = (uint32_t)err;
		return;
	}
	know(c, c->number);
}

static void finish(struct conn *c)
{
	if (c->me) {
		/* what is on its way is not to be thrown away */
		set_linger(c->fd, 0, 0);
		__atomic_store_n(&c->me->state, OVER, __ATOMIC_RELAXED);
	}
	close(c->fd);
	*c = conns[--count];
}

/* --- all of them --- */

static bool wants_to_read(const struct conn *c)
{
	return !c->deaf && (!c->me || c->me->plan & READS || over());
}

static void turn(struct conn *c, short events)
{
	if (c->connecting) {
		if (events & (POLLOUT | POLLERR | POLLHUP))
			connected(c);
		return;
	}
	if (events & (POLLIN | POLLERR | POLLHUP) && wants_to_read(c)) {
		if (c->me)
			read_some(c);
		else
			read_name(c);
	}
	if (events & POLLOUT && may_send(c))
		send_some(c);
	if (c->me)
		note_acked(c);
	shut(c);
}

static void take(void)
{
	struct conn *c = &conns[count];
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		return;
	if (count == CONNS)
		exit(4);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	*c = (struct conn){.fd = fd};
	count++;
}

static void look(void)
{
	struct pollfd p[CONNS + 1];
	uint32_t n = count;
	bool slow = false;

	for (uint32_t i = 0; i < n; i++) {
		struct conn *c = &conns[i];
		bool nap = c->me && c->me->plan & SLOW && !over() && rand() % 8;

		slow |= nap;
		p[i] = (struct pollfd){.fd = c->fd};
		if (wants_to_read(c) && !nap)
			p[i].events |= POLLIN;
		if (c->connecting || may_send(c))
			p[i].events |= POLLOUT;
		if (!p[i].events) /* or an end that nobody wants to know would keep us awake */
			p[i].fd = -1;
	}
	p[n] = (struct pollfd){.fd = listener, .events = POLLIN};
	poll(p, n + 1, slow ? TURN_MS : 10 * TURN_MS);
	for (uint32_t i = 0; i < n; i++)
		turn(&conns[i], p[i].revents);
	if (listener >= 0 && p[n].revents)
		take();
	for (uint32_t i = count; i-- > 0;)
		if (conns[i].deaf && (conns[i].mute || over()))
			finish(&conns[i]);
}

static void start(uint32_t number, const struct sockaddr_in *to)
{
	struct conn *c = &conns[count++];

	*c = (struct conn){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .connecting = true, .number = number};
	if (c->fd < 0)
		exit(5);
	ledger->connection[number].end[side].pid = (uint32_t)getpid();
	if (!connect(c->fd, (const struct sockaddr *)to, sizeof(*to)) || errno != EINPROGRESS)
		connected(c);
}

static void listen_at(const struct sockaddr_in *at)
{
	int on = 1;

	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (const struct sockaddr *)at, sizeof(*at)) || listen(listener, 64)) {
		perror("listen");
		exit(6);
	}
}

static void open_ledger(const char *path)
{
	int fd = open(path, O_RDWR);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		exit(7);
	ledger = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ledger == MAP_FAILED)
		exit(7);
	most = (uint32_t)(((size_t)st.st_size - sizeof(*ledger)) / sizeof(struct connection));
	close(fd);
}

/* Clients end with their connections, servers when besides no more clients come. */
static int live(void)
{
	uint64_t until = now_ms() + PATIENCE * 1000ull;

	while (count || (side && over() < 2)) {
		look();
		if (now_ms() > until) {
			fprintf(stderr, "%u connections hang\n", count);
			return 8;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	uint32_t first, n;
	pid_t child = 0;
	int status = 0, rc;

	if (argc < 7)
		return 2;
	open_ledger(argv[1]);
	inet_pton(AF_INET, argv[3], &sa.sin_addr);
	sa.sin_port = htons((uint16_t)strtoul(argv[4], NULL, 10));
	first = (uint32_t)strtoul(argv[5], NULL, 10);
	n = (uint32_t)strtoul(argv[6], NULL, 10);
	srand(first);
	side = strcmp(argv[2], "client") != 0;
	if (side)
		listen_at(&sa);
	for (uint32_t i = 0; !side && i < n; i++)
		start(first + i, &sa);
	if (!strcmp(argv[2], "workers"))
		child = fork();
	rc = live();
	if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status))
		rc = WEXITSTATUS(status);
	return rc;
}
