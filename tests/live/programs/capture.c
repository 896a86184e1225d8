/*
 * Captures that last a moment, each by another way in.
 *
 * `capture WAY MARK` captures once and ends; `capture times COUNT WAY MARK` starts that COUNT times, one
 * after the other, and says how long they took. MARK is for whoever watches: it tells this run from others.
 * Ends with 77 where the kernel has no such way.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/if_xdp.h>
#include <linux/io_uring.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CANNOT = 77, OP_SOCKET = 45 };
enum { UMEM = 1 << 16, FRAME = 2048, ENTRIES = 16 };

static void fail(const char *what)
{
	int cannot = errno == ENOSYS || errno == EAFNOSUPPORT || errno == ESOCKTNOSUPPORT;
	perror(what);
	exit(cannot ? CANNOT : 1);
}

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static int opened(int fd, const char *what)
{
	if (fd < 0)
		fail(what);
	return fd;
}

static void bind_to_loopback(int fd)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	address.sll_ifindex = if_nametoindex("lo");
	if (bind(fd, (void *)&address, sizeof(address)))
		fail("bind");
}

/* Sends itself a datagram, and reads one packet. */
static void read_one(int fd)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(9) };
	struct timeval patience = { .tv_sec = 2 };
	char packet[256];
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int sender = opened(socket(AF_INET, SOCK_DGRAM, 0), "UDP");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (sendto(sender, "x", 1, 0, (void *)&address, sizeof(address)) < 0)
		fail("sendto");
	if (recv(fd, packet, sizeof(packet), 0) < 0)
		fail("recv");
}

static int packet_socket(void)
{
	return opened(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)), "AF_PACKET");
}

/* As libpcap does: without a protocol before it is bound, or binding would wait for all processors. */
static void packet(void)
{
	int fd = opened(socket(AF_PACKET, SOCK_RAW, 0), "AF_PACKET");
	bind_to_loopback(fd);
	read_one(fd);
}

static void promiscuous(void)
{
	int fd = packet_socket();
	struct packet_mreq request = { .mr_type = PACKET_MR_PROMISC };
	request.mr_ifindex = if_nametoindex("lo");
	bind_to_loopback(fd);
	if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request)))
		fail("PACKET_ADD_MEMBERSHIP");
	read_one(fd);
}

/* One of two sockets that share what comes in, with a memory-mapped ring. */
static void ring(void)
{
	int fd = packet_socket();
	struct tpacket_req request = { .tp_block_size = 4096, .tp_frame_size = 2048 };
	int group = (getpid() & 0xffff) | PACKET_FANOUT_HASH << 16;
	request.tp_block_nr = 1;
	request.tp_frame_nr = 2;
	bind_to_loopback(fd);
	if (setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)))
		fail("PACKET_RX_RING");
	if (setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof(group)))
		fail("PACKET_FANOUT");
}

/* The address is a struct sockaddr with the interface's name. */
static void sock_packet(void)
{
	int fd = opened(socket(AF_INET, SOCK_PACKET, htons(ETH_P_ALL)), "SOCK_PACKET");
	struct sockaddr address = { .sa_family = AF_INET, .sa_data = "lo" };
	if (bind(fd, &address, sizeof(address)))
		fail("bind");
	read_one(fd);
}

static void raw(void)
{
	read_one(opened(socket(AF_INET, SOCK_RAW, IPPROTO_UDP), "SOCK_RAW"));
}

static void xdp(void)
{
	int fd = opened(socket(AF_XDP, SOCK_RAW, 0), "AF_XDP");
	void *memory = mmap(NULL, UMEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct xdp_umem_reg umem = { .addr = (unsigned long)memory, .len = UMEM, .chunk_size = FRAME };
	struct sockaddr_xdp address = { .sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY };
	int entries = ENTRIES;
	address.sxdp_ifindex = if_nametoindex("lo");
	if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof(umem)) ||
	    setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &entries, sizeof(entries)) ||
	    setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &entries, sizeof(entries)) ||
	    setsockopt(fd, SOL_XDP, XDP_RX_RING, &entries, sizeof(entries)))
		fail("SOL_XDP");
	if (bind(fd, (void *)&address, sizeof(address)))
		fail("bind");
}

/* What is submitted is done at once, by the submitting thread. */
static void uring(void)
{
	struct io_uring_params params = { 0 };
	int ring = opened(syscall(SYS_io_uring_setup, 4, &params), "io_uring_setup");
	size_t size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
	size_t all = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	int protection = PROT_READ | PROT_WRITE, how = MAP_SHARED | MAP_POPULATE;
	char *submit = mmap(NULL, size, protection, how, ring, IORING_OFF_SQ_RING);
	char *complete = mmap(NULL, all, protection, how, ring, IORING_OFF_CQ_RING);
	struct io_uring_sqe *entry = mmap(NULL, params.sq_entries * sizeof(*entry), protection, how, ring,
					  IORING_OFF_SQES);
	if (submit == MAP_FAILED || complete == MAP_FAILED || entry == MAP_FAILED)
		fail("mmap");
	memset(entry, 0, sizeof(*entry));
	entry->opcode = OP_SOCKET;
	entry->fd = AF_PACKET;
	entry->off = SOCK_RAW;
	entry->len = htons(ETH_P_ALL);
	*(unsigned *)(submit + params.sq_off.array) = 0;
	__atomic_store_n((unsigned *)(submit + params.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		fail("io_uring_enter");
	struct io_uring_cqe *done = (void *)(complete + params.cq_off.cqes);
	if (done->res < 0) {
		errno = -done->res == EINVAL ? ENOSYS : -done->res;
		fail("IORING_OP_SOCKET");
	}
	bind_to_loopback(done->res);
	read_one(done->res);
}

#ifdef __x86_64__
/* A system call of 32-bit programs, which takes pointers below 4 GB: hence the static address. */
static int call_32(int number, long a, long b, long c)
{
	int result;
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c)
			 : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static void int80(void)
{
	static struct sockaddr_ll address;
	int fd = call_32(359, AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	if (fd < 0) {
		errno = -fd;
		fail("int 0x80");
	}
	address.sll_family = AF_PACKET;
	address.sll_protocol = htons(ETH_P_ALL);
	address.sll_ifindex = if_nametoindex("lo");
	if (call_32(361, fd, (long)&address, sizeof(address))) {
		errno = EIO;
		fail("bind");
	}
	read_one(fd);
}
#else
static void int80(void)
{
	exit(CANNOT);
}
#endif

static void self(char *const arguments[])
{
	execv("/proc/self/exe", arguments);
	fail("execv");
}

/* The other end of `pass`: a process that is there before the socket is. */
static int taker(const char *way, const char *mark, pid_t *child)
{
	int pair[2];
	char number[12];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		fail("socketpair");
	*child = fork();
	if (*child == 0) {
		close(pair[0]);
		snprintf(number, sizeof(number), "%d", pair[1]);
		self((char *[]){ "capture", (char *)way, (char *)mark, number, NULL });
	}
	close(pair[1]);
	/* It says when it runs. */
	char ready;
	if (read(pair[0], &ready, 1) != 1)
		fail("taker");
	return pair[0];
}

static void ended(pid_t child)
{
	int status;
	waitpid(child, &status, 0);
	if (status)
		exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr head;
};

static void give(const char *mark)
{
	pid_t child;
	int to = taker("receive", mark, &child), fd = packet_socket();
	union control control = { 0 };
	struct iovec byte = { .iov_base = "x", .iov_len = 1 };
	struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1 };
	message.msg_control = &control;
	message.msg_controllen = sizeof(control);
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	bind_to_loopback(fd);
	if (sendmsg(to, &message, 0) != 1)
		fail("sendmsg");
	ended(child);
}

static void receive(int from)
{
	char byte;
	int fd;
	union control control;
	struct iovec place = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &place, .msg_iovlen = 1 };
	message.msg_control = &control;
	message.msg_controllen = sizeof(control);
	if (write(from, "r", 1) != 1 || recvmsg(from, &message, 0) != 1)
		fail("recvmsg");
	memcpy(&fd, CMSG_DATA(&control.head), sizeof(fd));
	read_one(fd);
}

static void lend(const char *mark)
{
	pid_t child;
	int to = taker("steal", mark, &child), fd = packet_socket();
	bind_to_loopback(fd);
	if (write(to, &fd, sizeof(fd)) != sizeof(fd))
		fail("write");
	ended(child);
}

static void steal(int from)
{
	int theirs;
	if (write(from, "r", 1) != 1 || read(from, &theirs, sizeof(theirs)) != sizeof(theirs))
		fail("read");
	int owner = opened(syscall(SYS_pidfd_open, getppid(), 0), "pidfd_open");
	read_one(opened(syscall(SYS_pidfd_getfd, owner, theirs, 0), "pidfd_getfd"));
}

/* In a new network namespace loopback is down. */
static void bring_up_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = opened(socket(AF_INET, SOCK_DGRAM, 0), "UDP");
	if (ioctl(fd, SIOCGIFFLAGS, &request))
		fail("SIOCGIFFLAGS");
	if (request.ifr_flags & IFF_UP)
		return;
	request.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		fail("SIOCSIFFLAGS");
	close(fd);
}

static int in_order(const void *a, const void *b)
{
	double difference = *(const double *)a - *(const double *)b;
	return (difference > 0) - (difference < 0);
}

/* A child says through `clock` how long it took from its first line to its last. */
static void times(int count, char *way, char *mark)
{
	double *took = calloc(count, sizeof(*took));
	int clock[2];
	if (pipe(clock) || dup2(clock[1], 9) < 0)
		fail("pipe");
	for (int i = 0; i < count; i++) {
		pid_t child = fork();
		if (child == 0)
			self((char *[]){ "capture", way, mark, NULL });
		if (read(clock[0], &took[i], sizeof(*took)) != sizeof(*took))
			exit(1);
		ended(child);
	}
	qsort(took, count, sizeof(*took), in_order);
	printf("%d times, from main to its end: median %.3f ms, 99 of 100 within %.3f ms\n", count,
	       took[count / 2], took[count * 99 / 100]);
}

int main(int argc, char **argv)
{
	double start = now();
	if (argc == 5 && strcmp(argv[1], "times") == 0) {
		bring_up_loopback();
		times(atoi(argv[2]), argv[3], argv[4]);
		return 0;
	}
	if (argc < 3)
		return 64;
	const char *way = argv[1], *mark = argv[2];
	/* The socket to whoever started this one to take a descriptor. */
	int number = argc > 3 ? atoi(argv[3]) : 0;
	struct {
		const char *name;
		void (*capture)(void);
	} ways[] = {
		{ "packet", packet }, { "promiscuous", promiscuous }, { "ring", ring }, { "sock_packet", sock_packet },
		{ "raw", raw }, { "xdp", xdp }, { "uring", uring }, { "int80", int80 },
	};
	if (strcmp(way, "give") == 0)
		give(mark);
	else if (strcmp(way, "receive") == 0)
		receive(number);
	else if (strcmp(way, "lend") == 0)
		lend(mark);
	else if (strcmp(way, "steal") == 0)
		steal(number);
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (strcmp(way, ways[i].name) == 0)
			ways[i].capture();
	double took = now() - start;
	return write(9, &took, sizeof(took)) < 0 && errno != EBADF;
}
