/* Captures that no packet socket shows, one a run; each says `ready` and stays until it is killed.
 *
 * beyond tcx IFACE        a tc program through a link (Linux 6.6)
 * beyond clsact IFACE     a tc program through a filter of clsact
 * beyond xdp IFACE        an XDP program through a link, generic mode
 * beyond orphan IFACE     a tcx program that is attached without a link; the loader ends
 * beyond detach IFACE ID  ends that
 * beyond filter           a socket filter with a map, on a UDP socket
 * beyond cgroup DIR [ringbuf]  a program on a control group's outgoing packets
 * beyond xsk IFACE        an AF_XDP socket with a receive ring
 * beyond nfqueue NUMBER   a reader of that queue
 * beyond nflog NUMBER     a reader of that group
 * beyond tap NAME BRIDGE  a TAP device, made a port of the bridge
 *
 * No libbpf: programs are four instructions, written by hand.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/if_xdp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

unsigned int if_nametoindex(const char *name);

#define TCX_INGRESS 46
#define XDP_ATTACH 37
#define UNSUPPORTED 77

static void fail(const char *what)
{
	int code = errno;
	fprintf(stderr, "%s: %s\n", what, strerror(code));
	exit(code == EINVAL || code == EOPNOTSUPP || code == EAFNOSUPPORT || code == ENOSYS ||
		     code == ENOPROTOOPT || code == EPROTONOSUPPORT || code == ENOENT
		 ? UNSUPPORTED
		 : 1);
}

static int check(int done, const char *what)
{
	if (done < 0)
		fail(what);
	return done;
}

static void stay(void)
{
	printf("ready\n");
	fflush(stdout);
	for (;;)
		pause();
}

static int bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int map(int type, int value_size, int entries)
{
	union bpf_attr attr = { 0 };
	attr.map_type = type;
	attr.key_size = value_size ? 4 : 0;
	attr.value_size = value_size;
	attr.max_entries = entries;
	return check(bpf(BPF_MAP_CREATE, &attr), "map");
}

/* Loads the address of the map, which is all that it takes to use it, and lets the packet pass. */
static int program(int type, int attach_type, int map_fd, int verdict, const char *name)
{
	struct bpf_insn code[] = {
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD,
		  .imm = map_fd },
		{ 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = verdict },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	int skip = map_fd < 0 ? 2 : 0;
	union bpf_attr attr = { 0 };
	attr.prog_type = type;
	attr.expected_attach_type = attach_type;
	attr.insns = (uintptr_t)(code + skip);
	attr.insn_cnt = 4 - skip;
	attr.license = (uintptr_t)"GPL";
	strncpy(attr.prog_name, name, sizeof(attr.prog_name) - 1);
	return check(bpf(BPF_PROG_LOAD, &attr), "load");
}

static unsigned int interface(const char *name)
{
	unsigned int index = if_nametoindex(name);
	if (!index)
		fail(name);
	return index;
}

static int link_to(int program_fd, unsigned int target, int attach_type, int flags)
{
	union bpf_attr attr = { 0 };
	attr.link_create.prog_fd = program_fd;
	attr.link_create.target_fd = target;
	attr.link_create.attach_type = attach_type;
	attr.link_create.flags = flags;
	return check(bpf(BPF_LINK_CREATE, &attr), "link");
}

static void attach(int program_fd, unsigned int target, int attach_type, int command)
{
	union bpf_attr attr = { 0 };
	attr.target_fd = target;
	attr.attach_bpf_fd = program_fd;
	attr.attach_type = attach_type;
	check(bpf(command, &attr), "attach");
}

static void *put(struct nlmsghdr *message, int type, const void *data, int length)
{
	struct rtattr *attr = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));
	attr->rta_type = type;
	attr->rta_len = RTA_LENGTH(length);
	if (length)
		memcpy(RTA_DATA(attr), data, length);
	message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + RTA_ALIGN(attr->rta_len);
	return attr;
}

static void ask(int socket_fd, struct nlmsghdr *message, const char *what)
{
	char answer[4096];
	message->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	check(send(socket_fd, message, message->nlmsg_len, 0), what);
	check(recv(socket_fd, answer, sizeof(answer), 0), what);
	struct nlmsgerr *error = NLMSG_DATA((struct nlmsghdr *)answer);
	errno = -error->error;
	if (error->error)
		fail(what);
}

static void clsact(int program_fd, unsigned int index)
{
	char buffer[512];
	struct nlmsghdr *message = (void *)buffer;
	struct tcmsg *tc = NLMSG_DATA(message);
	int route = check(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), "netlink");

	memset(buffer, 0, sizeof(buffer));
	message->nlmsg_len = NLMSG_LENGTH(sizeof(*tc));
	message->nlmsg_type = RTM_NEWQDISC;
	message->nlmsg_flags = NLM_F_CREATE;
	tc->tcm_ifindex = index;
	tc->tcm_parent = TC_H_CLSACT;
	tc->tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
	put(message, TCA_KIND, "clsact", 7);
	ask(route, message, "clsact");

	memset(buffer, 0, sizeof(buffer));
	message->nlmsg_len = NLMSG_LENGTH(sizeof(*tc));
	message->nlmsg_type = RTM_NEWTFILTER;
	message->nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL;
	tc->tcm_ifindex = index;
	tc->tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS);
	tc->tcm_info = TC_H_MAKE(1 << 16, htons(3));
	put(message, TCA_KIND, "bpf", 4);
	struct rtattr *options = put(message, TCA_OPTIONS, NULL, 0);
	uint32_t fd = program_fd, flags = TCA_BPF_FLAG_ACT_DIRECT;
	put(message, TCA_BPF_FD, &fd, 4);
	put(message, TCA_BPF_NAME, "sniff", 6);
	put(message, TCA_BPF_FLAGS, &flags, 4);
	options->rta_len = (char *)message + message->nlmsg_len - (char *)options;
	ask(route, message, "filter");
	close(route);
}

static void netfilter(int subsystem, int type, int number, int attribute, int bind, int mode_attribute,
		      int mode_size)
{
	char buffer[256];
	struct nlmsghdr *message = (void *)buffer;
	struct nfgenmsg *head = NLMSG_DATA(message);
	int reader = check(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER), "netlink");
	struct nfulnl_msg_config_mode log_mode = { .copy_range = htonl(0xffff),
						   .copy_mode = NFULNL_COPY_PACKET };
	struct nfqnl_msg_config_params queue_mode = { .copy_range = htonl(0xffff),
						      .copy_mode = NFQNL_COPY_PACKET };
	char command[4] = { bind, 0, 0, 0 };

	for (int step = 0; step < 2; step++) {
		memset(buffer, 0, sizeof(buffer));
		message->nlmsg_len = NLMSG_LENGTH(sizeof(*head));
		message->nlmsg_type = subsystem << 8 | type;
		head->nfgen_family = AF_UNSPEC;
		head->res_id = htons(number);
		if (step == 0)
			put(message, attribute, command, subsystem == NFNL_SUBSYS_ULOG ? 1 : 4);
		else
			put(message, mode_attribute,
			    subsystem == NFNL_SUBSYS_ULOG ? (void *)&log_mode : (void *)&queue_mode,
			    mode_size);
		ask(reader, message, "bind");
	}
}

static void xsk(unsigned int index)
{
	size_t size = 64 * 4096;
	int entries = 64;
	int fd = check(socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0), "AF_XDP");
	void *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct xdp_umem_reg umem = { .addr = (uintptr_t)area, .len = size, .chunk_size = 4096 };
	check(setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof(umem)), "umem");
	check(setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &entries, sizeof(entries)), "fill ring");
	check(setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &entries, sizeof(entries)), "ring");
	check(setsockopt(fd, SOL_XDP, XDP_RX_RING, &entries, sizeof(entries)), "receive ring");
	struct xdp_mmap_offsets offsets;
	socklen_t length = sizeof(offsets);
	check(getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &length), "offsets");
	if (mmap(NULL, offsets.rx.desc + entries * sizeof(struct xdp_desc), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_POPULATE, fd, XDP_PGOFF_RX_RING) == MAP_FAILED)
		fail("map of the receive ring");
	struct sockaddr_xdp address = { .sxdp_family = AF_XDP, .sxdp_ifindex = index,
					.sxdp_flags = XDP_COPY };
	check(bind(fd, (void *)&address, sizeof(address)), "bind");
}

static void tap(const char *name, const char *bridge)
{
	struct ifreq request = { 0 };
	int fd = check(open("/dev/net/tun", O_RDWR | O_CLOEXEC), "tun");
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	request.ifr_flags = IFF_TAP | IFF_NO_PI;
	check(ioctl(fd, TUNSETIFF, &request), "TAP");
	int any = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	memset(&request, 0, sizeof(request));
	strncpy(request.ifr_name, bridge, IFNAMSIZ - 1);
	request.ifr_ifindex = interface(name);
	/* SIOCBRADDIF */
	check(ioctl(any, 0x89a2, &request), "port");
	close(any);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 64;
	const char *what = argv[1];
	const char *where = argc > 2 ? argv[2] : "";
	if (!strcmp(what, "tcx")) {
		int fd = program(BPF_PROG_TYPE_SCHED_CLS, 0, map(BPF_MAP_TYPE_RINGBUF, 0, 4096), -1, "sniff");
		link_to(fd, interface(where), TCX_INGRESS, 0);
	} else if (!strcmp(what, "clsact")) {
		int fd = program(BPF_PROG_TYPE_SCHED_CLS, 0, map(BPF_MAP_TYPE_RINGBUF, 0, 4096), -1, "sniff");
		clsact(fd, interface(where));
	} else if (!strcmp(what, "xdp")) {
		int fd = program(BPF_PROG_TYPE_XDP, XDP_ATTACH, map(BPF_MAP_TYPE_ARRAY, 8, 1), 2, "sniff");
		/* XDP_FLAGS_SKB_MODE */
		link_to(fd, interface(where), XDP_ATTACH, 2);
	} else if (!strcmp(what, "orphan")) {
		int fd = program(BPF_PROG_TYPE_SCHED_CLS, 0, -1, -1, "orphan");
		attach(fd, interface(where), TCX_INGRESS, BPF_PROG_ATTACH);
		return 0;
	} else if (!strcmp(what, "filter")) {
		int fd = program(BPF_PROG_TYPE_SOCKET_FILTER, 0, map(BPF_MAP_TYPE_ARRAY, 8, 1), 65535,
				 "sniff");
		int udp = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
		check(setsockopt(udp, SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof(fd)), "SO_ATTACH_BPF");
	} else if (!strcmp(what, "cgroup")) {
		int ring = argc > 3 ? map(BPF_MAP_TYPE_RINGBUF, 0, 4096) : -1;
		int fd = program(BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS, ring, 1,
				 argc > 3 ? "sniff" : "sd_fw_egress");
		int group = check(open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC), where);
		attach(fd, group, BPF_CGROUP_INET_EGRESS, BPF_PROG_ATTACH);
	} else if (!strcmp(what, "xsk")) {
		xsk(interface(where));
	} else if (!strcmp(what, "nfqueue")) {
		netfilter(NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG, atoi(where), NFQA_CFG_CMD,
			  NFQNL_CFG_CMD_BIND, NFQA_CFG_PARAMS, sizeof(struct nfqnl_msg_config_params));
	} else if (!strcmp(what, "nflog")) {
		netfilter(NFNL_SUBSYS_ULOG, NFULNL_MSG_CONFIG, atoi(where), NFULA_CFG_CMD,
			  NFULNL_CFG_CMD_BIND, NFULA_CFG_MODE, sizeof(struct nfulnl_msg_config_mode));
	} else if (!strcmp(what, "tap")) {
		tap(where, argc > 3 ? argv[3] : "");
	} else {
		return 64;
	}
	stay();
}
