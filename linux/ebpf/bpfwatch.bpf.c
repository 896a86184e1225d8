/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Tells user space of capture handles and of processes, each at the moment that it happens.
 *
 * Two rings, so that a flood of executions cannot push out a handle: `handles` wakes the reader at once,
 * `processes` only when it fills up. Whoever reads both, handles first, and sorts by time has an
 * execution before the handle that its process opened.
 *
 * Ordinary sockets leave after two or three reads. Nothing here blocks or changes anything.
 *
 * linux/src/ebpf/layout.rs reads what is written here: change both together, and build the object anew
 * with linux/ebpf/build.
 */
#include "kernel.h"

/* Programs on functions of the kernel. The verifier takes them on any kernel as raw tracepoints too, which
 * is how they are tested where the kernel does not let functions be hooked. */
#ifdef VERIFY_ONLY
#define HOOK(name) SEC("raw_tp/" name)
#else
#define HOOK(name) SEC(name)
#endif

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum kind {
	FORK = 1,
	EXEC,
	EXIT,
	OPEN,
	BIND,
	FILTER,
	RING,
	PROMISC,
	RECEIVE,
	CLOSE,
	FLAGS,
	BPF,
};

enum { AF_INET = 2, AF_INET6 = 10, AF_PACKET = 17, AF_XDP = 44 };
enum { SOCK_STREAM = 1, SOCK_RAW = 3, SOCK_PACKET = 10 };
enum { SOL_PACKET = 263 };
enum { PACKET_ADD_MEMBERSHIP = 1, PACKET_DROP_MEMBERSHIP = 2, PACKET_RX_RING = 5 };
/* include/uapi/linux/bpf.h: commands and program types. */
enum { BPF_PROG_LOAD = 5, BPF_PROG_ATTACH = 8, BPF_LINK_CREATE = 28 };
enum { SOCKET_FILTER = 1, SCHED_CLS = 3, SCHED_ACT = 4, XDP = 6, CGROUP_SKB = 8, NETFILTER = 32 };
enum { IFF_PROMISC = 0x100, S_IFMT = 0170000, S_IFSOCK = 0140000 };

/* Set by the loader: the kernel has control groups of version 1 in use. */
volatile const u32 cgroup_v1 = 0;
/* Bytes waiting in `processes` at which the reader is woken. */
volatile const u32 wake_at = 1 << 18;

/* Who: the same for all events. Numbers are those of the initial namespaces. */
struct who {
	u64 time;	/* CLOCK_MONOTONIC, ns */
	u64 start;	/* of the process, since boot, ns */
	u16 kind;
	u16 flags;
	u32 pid;
	u32 ppid;
	u32 sid;
	u32 uid;
	u32 tty;
	u32 net;	/* inodes of namespaces */
	u32 mnt;
	u32 pidns;
	u32 user;
	char comm[16];
	u32 execs;	/* how often it, and those that it is a copy of, executed something */
	u32 unused;
};

struct handle_event {
	struct who who;
	u64 inode;	/* or the program's number */
	u32 net;	/* the socket's, or the interface's */
	s32 ifindex;
	u16 family;
	u16 type;	/* of the socket, or of the program */
	u16 protocol;	/* host byte order */
	u16 on;
	char interface[16];
	u32 unified;	/* bytes of the path in the unified hierarchy */
	u32 size;	/* of text: that, then the path in the first one of version 1 */
	char text[1024];
};

/* Parts of `data`, in this order. Paths are their components, last one first, each ended by a zero byte. */
struct process_event {
	struct who who;
	u64 args_length; /* of all arguments */
	u32 owner;	/* of the image */
	u16 image;	/* bytes of the image's path */
	u16 cwd;
	u16 cgroup;	/* bytes of the path in the unified hierarchy */
	u16 cgroup1;	/* and in the first one of version 1 */
	u16 args_head;
	u16 args_tail;
	char data[32512];
};

enum {
	IMAGE_DELETED = 1,
	IMAGE_UNNAMED = 2, /* a file that never had a name: memfd */
	IMAGE_CUT = 4,	   /* its path is longer than what is kept: the first directories are missing */
	CWD_CUT = 8,
};

/* Makes the compiler keep a check that the verifier needs and that it could do without. */
#define BOUND(value) asm volatile("" : "+r"(value))

enum { NAME = 256, PATHS = 6144, ARGS_HEAD = 16384, ARGS_TAIL = 8192 };

struct {
	INT(type, MAP_RINGBUF);
	INT(max_entries, 1 << 18);
} handles SEC(".maps");

struct {
	INT(type, MAP_RINGBUF);
	INT(max_entries, 1 << 20);
} processes SEC(".maps");

/* Events that found their ring full: of `handles`, of `processes`. */
struct {
	INT(type, MAP_ARRAY);
	INT(max_entries, 2);
	u32 *key;
	u64 *value;
} lost SEC(".maps");

/* Too large for the stack. Programs on tracepoints are not interrupted by others on the same processor. */
struct {
	INT(type, MAP_PERCPU_ARRAY);
	INT(max_entries, 1);
	u32 *key;
	struct process_event *value;
} scratch SEC(".maps");

/* A thread in setsockopt(PACKET_ADD_MEMBERSHIP or PACKET_DROP_MEMBERSHIP): on which socket. */
struct membership {
	u64 inode;
	u64 time;
	u32 net;
	u16 type;
	u16 on;
};
struct {
	INT(type, MAP_LRU_HASH);
	INT(max_entries, 1024);
	u64 *key;
	struct membership *value;
} memberships SEC(".maps");

static inline_always void count_lost(u32 ring)
{
	u64 *count = map_lookup(&lost, &ring);
	if (count)
		__sync_fetch_and_add(count, 1);
}

/* ---- who ---- */

static inline_always void identify(struct who *who, struct task_struct *task, u16 kind)
{
	who->time = ktime();
	who->kind = kind;
	who->flags = 0;
	who->pid = READ(task, tgid);
	struct task_struct *leader = READ(task, group_leader);
	who->start = READ(leader, start_boottime);
	who->execs = READ(task, self_exec_id);
	who->unused = 0;
	read_kernel(who->comm, sizeof(who->comm), &task->comm);
}

static inline_always void describe(struct who *who, struct task_struct *task)
{
	struct task_struct *parent = READ(task, real_parent);
	who->ppid = READ(parent, tgid);
	struct signal_struct *signal = READ(task, signal);
	/* PIDTYPE_SID is 3 (include/linux/pid_types.h); numbers[0] is that of the initial namespace. */
	struct pid *session = READ(signal, pids[3]);
	who->sid = READ(session, numbers[0].nr);
	who->tty = 0;
	struct tty_struct *tty = READ(signal, tty);
	if (tty) {
		struct tty_driver *driver = READ(tty, driver);
		u32 major = READ(driver, major);
		u32 minor = READ(driver, minor_start) + READ(tty, index);
		/* include/linux/kdev_t.h: new_encode_dev, as in /proc/PID/stat. */
		who->tty = (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
	}
	struct cred *cred = READ(task, cred);
	who->uid = READ(cred, euid.val);
	struct user_namespace *user = READ(cred, user_ns);
	who->user = READ(user, ns.inum);
	struct nsproxy *nsproxy = READ(task, nsproxy);
	struct mnt_namespace *mnt = READ(nsproxy, mnt_ns);
	who->mnt = READ(mnt, ns.inum);
	struct net *net = READ(nsproxy, net_ns);
	who->net = READ(net, ns.inum);
	struct pid *pid = READ(task, thread_pid);
	u32 level = READ(pid, level) & 31;
	struct upid *numbers = (void *)pid + __builtin_preserve_field_info(pid->numbers, 0);
	struct upid *own = (void *)numbers + level * __builtin_preserve_type_info(*numbers, 1);
	struct pid_namespace *pidns = READ(own, ns);
	who->pidns = READ(pidns, ns.inum);
}

/* A function that the verifier looks at once, and not again for each call: its arguments are numbers. */
#define ONCE __attribute__((noinline))

/* ---- paths ---- */

/* Appends names from `kn` up to its root; returns the new end of `data`. */
static inline_always u64 control_group(char *data, u64 end, u64 limit, struct kernfs_node *kn)
{
	for (int i = 0; i < 16; i++) {
		struct kernfs_node *parent;
		if (HAS(struct kernfs_node, __parent))
			parent = READ(kn, __parent);
		else
			parent = READ((struct kernfs_node___old *)kn, parent);
		if (!parent || end > limit)
			break;
		long size = read_kernel_str(data + end, NAME, READ(kn, name));
		if (size > 0)
			end += size & (2 * NAME - 1);
		kn = parent;
	}
	return end;
}

static inline_always struct kernfs_node *unified_group(struct task_struct *task)
{
	struct css_set *set = READ(task, cgroups);
	struct cgroup *group = READ(set, dfl_cgrp);
	return READ(group, kn);
}

/* The first group of version 1 that is not the root of its hierarchy. */
static inline_always struct kernfs_node *old_group(struct task_struct *task)
{
	if (!cgroup_v1)
		return NULL;
	struct css_set *set = READ(task, cgroups);
	struct cgroup *unified = READ(set, dfl_cgrp);
	struct cgroup_root *root = READ(unified, root);
	struct cgroup_subsys_state **subsys =
		(void *)set + __builtin_preserve_field_info(set->subsys, 0);
	for (int i = 0; i < 8; i++) {
		struct cgroup_subsys_state *state = NULL;
		read_kernel(&state, sizeof(state), subsys + i);
		struct cgroup *group = READ(state, cgroup);
		if (!group || READ(group, root) == root)
			continue;
		struct kernfs_node *kn = READ(group, kn);
		struct kernfs_node *parent;
		if (HAS(struct kernfs_node, __parent))
			parent = READ(kn, __parent);
		else
			parent = READ((struct kernfs_node___old *)kn, parent);
		if (parent)
			return kn;
	}
	return NULL;
}

/* Appends the components of a path up to the root of its mount namespace to the data in `scratch`. */
ONCE u32 components(u64 end, u64 from, u64 in, u32 cut)
{
	u32 zero = 0;
	struct process_event *event = map_lookup(&scratch, &zero);
	if (!event)
		return end;
	struct dentry *dentry = (void *)from;
	struct vfsmount *vfs = (void *)in;
	struct mount *mount = container_of(vfs, struct mount, mnt);
	struct dentry *top = READ(vfs, mnt_root);
	for (int i = 0; i < 48; i++) {
		if (end > PATHS - NAME)
			break;
		struct dentry *parent = READ(dentry, d_parent);
		if (dentry == top || dentry == parent) {
			struct mount *above = READ(mount, mnt_parent);
			if (dentry != top || above == mount)
				return end;
			dentry = READ(mount, mnt_mountpoint);
			mount = above;
			top = READ(mount, mnt.mnt_root);
			continue;
		}
		long size = read_kernel_str(event->data + end, NAME, READ(dentry, d_name.name));
		if (size > 0)
			end += size & (2 * NAME - 1);
		dentry = parent;
	}
	event->who.flags |= cut;
	return end;
}

/* The same for a control group. */
ONCE u32 scratch_group(u64 end, u64 kn)
{
	u32 zero = 0;
	struct process_event *event = map_lookup(&scratch, &zero);
	if (!event || end > PATHS - NAME)
		return end;
	return control_group(event->data, end, PATHS - NAME, (void *)kn);
}

/* ---- processes ---- */

static inline_always void send_process(void *event, u64 size)
{
	u64 flags = ring_query(&processes, RING_AVAILABLE) > wake_at ? RING_FORCE_WAKEUP : RING_NO_WAKEUP;
	if (ring_output(&processes, event, size, flags) < 0)
		count_lost(1);
}

SEC("tp_btf/sched_process_fork")
int forked(u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0];
	struct task_struct *child = (void *)ctx[1];
	struct who who = {};
	if (READ(child, pid) != READ(child, tgid))
		return 0;
	identify(&who, child, FORK);
	who.ppid = READ(parent, tgid);
	struct signal_struct *signal = READ(child, signal);
	struct pid *session = READ(signal, pids[3]);
	who.sid = READ(session, numbers[0].nr);
	send_process(&who, sizeof(who));
	return 0;
}

SEC("tp_btf/sched_process_exit")
int exited(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct signal_struct *signal = READ(task, signal);
	/* kernel/exit.c: do_exit counts threads down before; the last one ends the process. */
	if (READ(signal, live.counter) != 0)
		return 0;
	struct who who = {};
	identify(&who, task, EXIT);
	send_process(&who, sizeof(who));
	return 0;
}

SEC("tp_btf/sched_process_exec")
int executed(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	u32 zero = 0;
	struct process_event *event = map_lookup(&scratch, &zero);
	if (!event)
		return 0;
	identify(&event->who, task, EXEC);
	describe(&event->who, task);

	struct mm_struct *mm = READ(task, mm);
	struct file *file = READ(mm, exe_file);
	struct inode *inode = READ(file, f_inode);
	event->owner = READ(inode, i_uid.val);
	struct dentry *dentry = READ(file, f_path.dentry);
	u64 end = 0;
	if (READ(dentry, d_parent) == dentry) {
		event->who.flags |= IMAGE_UNNAMED | IMAGE_DELETED;
		long size = read_kernel_str(event->data, NAME, READ(dentry, d_name.name));
		if (size > 0)
			end = size & (2 * NAME - 1);
	} else {
		/* include/linux/dcache.h: d_unhashed. */
		if (!READ(dentry, d_hash.pprev))
			event->who.flags |= IMAGE_DELETED;
		end = components(0, (u64)dentry, (u64)READ(file, f_path.mnt), IMAGE_CUT);
	}
	BOUND(end);
	if (end > PATHS)
		return 0;
	event->image = end;
	struct fs_struct *fs = READ(task, fs);
	u64 before = end;
	end = components(end, (u64)READ(fs, pwd.dentry), (u64)READ(fs, pwd.mnt), CWD_CUT);
	BOUND(end);
	if (end > PATHS)
		return 0;
	event->cwd = end - before;
	before = end;
	end = scratch_group(end, (u64)unified_group(task));
	BOUND(end);
	if (end > PATHS)
		return 0;
	event->cgroup = end - before;
	before = end;
	struct kernfs_node *old = old_group(task);
	if (old)
		end = scratch_group(end, (u64)old);
	BOUND(end);
	if (end > PATHS)
		return 0;
	event->cgroup1 = end - before;

	u64 from = READ(mm, arg_start);
	u64 length = READ(mm, arg_end) - from;
	if (length > 1 << 24)
		length = 0;
	event->args_length = length;
	u64 head = length > ARGS_HEAD ? ARGS_HEAD : length;
	u64 left = length - head;
	u64 tail = left > ARGS_TAIL ? ARGS_TAIL : left;
	event->args_head = 0;
	event->args_tail = 0;
	if (head && end <= PATHS && read_user(event->data + end, head, (void *)from) == 0) {
		event->args_head = head;
		end += head;
		if (tail && end <= PATHS + ARGS_HEAD &&
		    read_user(event->data + end, tail, (void *)(from + length - tail)) == 0) {
			event->args_tail = tail;
			end += tail;
		}
	}
	u64 size = sizeof(*event) - sizeof(event->data) + end;
	if (size <= sizeof(*event))
		send_process(event, size);
	return 0;
}

/* ---- handles ---- */

static inline_always int is_handle(u16 family, u16 type)
{
	return family == AF_PACKET || family == AF_XDP ||
	       (type == SOCK_RAW && (family == AF_INET || family == AF_INET6));
}

/* Family of a socket that is of interest, else 0. */
static inline_always u16 family_of(struct socket *sock)
{
	u16 type = READ(sock, type);
	if (type == SOCK_STREAM)
		return 0;
	struct sock *sk = READ(sock, sk);
	if (!sk)
		return 0;
	u16 family = READ(sk, __sk_common.skc_family);
	return is_handle(family, type) ? family : 0;
}

static inline_always u64 inode_of(struct socket *sock)
{
	struct socket_alloc *alloc = container_of(sock, struct socket_alloc, socket);
	return READ(alloc, vfs_inode.i_ino);
}

/* Everything but what is particular to a kind. */
static inline_always int fill(struct handle_event *event, u16 kind)
{
	struct task_struct *task = current_task();
	__builtin_memset(event, 0, sizeof(*event) - sizeof(event->text));
	identify(&event->who, task, kind);
	describe(&event->who, task);
	u64 end = control_group(event->text, 0, sizeof(event->text) - NAME, unified_group(task));
	event->unified = end;
	event->size = end;
	struct kernfs_node *old = end <= sizeof(event->text) - NAME ? old_group(task) : NULL;
	if (old)
		event->size = control_group(event->text, end, sizeof(event->text) - NAME, old);
	return 0;
}

static inline_always struct handle_event *begin(u16 kind)
{
	struct handle_event *event = ring_reserve(&handles, sizeof(*event), 0);
	if (!event)
		count_lost(0);
	else
		fill(event, kind);
	return event;
}

static inline_always void end(struct handle_event *event)
{
	ring_submit(event, RING_FORCE_WAKEUP);
}

static inline_always void of_socket(struct handle_event *event, struct socket *sock)
{
	struct sock *sk = READ(sock, sk);
	struct net *net = READ(sk, __sk_common.skc_net.net);
	event->inode = inode_of(sock);
	event->net = READ(net, ns.inum);
	event->family = READ(sk, __sk_common.skc_family);
	event->type = READ(sock, type);
	if (event->family != AF_PACKET)
		event->protocol = READ(sk, sk_protocol);
}

/* What needs no more than the socket and a yes or no. */
ONCE int tell(u64 at, u32 kind, u32 on)
{
	struct handle_event *event = begin(kind);
	if (!event)
		return 0;
	of_socket(event, (void *)at);
	event->on = on;
	end(event);
	return 0;
}

ONCE int tell_opened(u64 at, u32 family, u32 protocol)
{
	struct handle_event *event = begin(OPEN);
	if (!event)
		return 0;
	/* Without a socket nobody knows its number yet: the reader looks. */
	if (at)
		of_socket(event, (void *)at);
	event->protocol = family == AF_PACKET ? __builtin_bswap16(protocol) : protocol;
	end(event);
	return 0;
}

static inline_always int opened(u64 *ctx)
{
	struct socket *sock = (void *)ctx[0];
	u16 family = ctx[1];
	u16 type = ctx[2];
	if (!is_handle(family, type) || (u32)ctx[4])
		return 0;
	return tell_opened((u64)sock, family, ctx[3]);
}

/* Name of an interface (net/core/dev.c: dev_get_by_index walks the same list). */
static inline_always void name_of(char *to, struct net *net, s32 ifindex)
{
	if (ifindex <= 0)
		return;
	struct hlist_head *heads = READ(net, dev_index_head);
	struct hlist_node *node = READ(heads + (ifindex & 255), first);
	for (int i = 0; i < 16 && node; i++) {
		struct net_device *device = container_of(node, struct net_device, index_hlist);
		if (READ(device, ifindex) == ifindex) {
			read_kernel(to, 16, &device->name);
			return;
		}
		node = READ(node, next);
	}
}

/* struct sockaddr_ll or sockaddr_xdp; for SOCK_PACKET a struct sockaddr, whose name follows the family. */
struct address {
	u16 family;
	u16 protocol;
	s32 ifindex;
	u64 rest;
};

/* `first` and `second` are a struct address. */
ONCE int tell_bound(u64 at, u32 family, u64 first, u64 second)
{
	struct socket *sock = (void *)at;
	struct {
		u64 first, second;
	} words = { first, second };
	struct address *address = (void *)&words;
	struct handle_event *event = begin(BIND);
	if (!event)
		return 0;
	of_socket(event, sock);
	if (event->type == SOCK_PACKET) {
		/* net/packet/af_packet.c: packet_bind_spkt takes 14 bytes of name. */
		__builtin_memcpy(event->interface, (char *)address + sizeof(address->family), 14);
	} else {
		struct sock *sk = READ(sock, sk);
		event->ifindex = address->ifindex;
		if (family == AF_PACKET)
			event->protocol = __builtin_bswap16(address->protocol);
		name_of(event->interface, READ(sk, __sk_common.skc_net.net), address->ifindex);
	}
	end(event);
	return 0;
}

static inline_always int bound(u64 *ctx)
{
	struct socket *sock = (void *)ctx[0];
	u16 family = family_of(sock);
	if (family != AF_PACKET && family != AF_XDP)
		return 0;
	/* Copied from user space already, into a buffer of more than this size. */
	struct address address = {};
	read_kernel(&address, sizeof(address), (void *)ctx[1]);
	u64 *words = (void *)&address;
	return tell_bound((u64)sock, family, words[0], words[1]);
}

static inline_always int option(u64 *ctx)
{
	struct socket *sock = (void *)ctx[0];
	s32 level = ctx[1];
	s32 name = ctx[2];
	if (level != SOL_PACKET)
		return 0;
	if (family_of(sock) != AF_PACKET)
		return 0;
	if (name == PACKET_ADD_MEMBERSHIP || name == PACKET_DROP_MEMBERSHIP) {
		struct sock *sk = READ(sock, sk);
		struct net *net = READ(sk, __sk_common.skc_net.net);
		struct membership membership = {
			.inode = inode_of(sock),
			.time = ktime(),
			.net = READ(net, ns.inum),
			.type = READ(sock, type),
			.on = name == PACKET_ADD_MEMBERSHIP,
		};
		u64 thread = pid_tgid();
		map_update(&memberships, &thread, &membership, 0);
		return 0;
	}
	if (name != PACKET_RX_RING)
		return 0;
	return tell((u64)sock, RING, 1);
}

/* Right before the socket is handed to the receiver: SCM_RIGHTS, pidfd_getfd, and others. */
static inline_always int received(u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	struct inode *inode = READ(file, f_inode);
	if ((READ(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	struct socket *sock = READ(file, private_data);
	return family_of(sock) ? tell((u64)sock, RECEIVE, 0) : 0;
}

/* ---- programs of others ---- */

static inline_always int sees_packets(u32 type)
{
	return type == SOCKET_FILTER || type == SCHED_CLS || type == SCHED_ACT || type == XDP ||
	       type == CGROUP_SKB || type == NETFILTER;
}

/* A program was loaded; without one, something was attached: where and what, the looks find out. */
ONCE int tell_program(u64 at)
{
	struct bpf_prog *program = (void *)at;
	struct handle_event *event = begin(BPF);
	if (!event)
		return 0;
	event->net = event->who.net;
	if (program) {
		struct bpf_prog_aux *aux = READ(program, aux);
		event->inode = READ(aux, id);
		event->type = READ(program, type);
		event->on = READ(aux, used_map_cnt) != 0;
	}
	end(event);
	return 0;
}

/* kernel/bpf/syscall.c: bpf_prog_new_fd, for whoever gets a descriptor. Only the loader has the first. */
static inline_always int program(u64 *ctx)
{
	struct bpf_prog *program = (void *)ctx[0];
	struct bpf_prog_aux *aux = READ(program, aux);
	if (!sees_packets(READ(program, type)) || READ(aux, refcnt.counter) != 1)
		return 0;
	return tell_program((u64)program);
}

static inline_always int attaches(u32 command)
{
	return command == BPF_PROG_ATTACH || command == BPF_LINK_CREATE;
}

HOOK("lsm/bpf_prog")
int lsm_program(u64 *ctx)
{
	return program(ctx);
}
HOOK("lsm/bpf")
int lsm_attached(u64 *ctx)
{
	return attaches(ctx[0]) ? tell_program(0) : 0;
}
HOOK("fexit/security_bpf_prog")
int fexit_program(u64 *ctx)
{
	return program(ctx);
}
HOOK("fentry/security_bpf")
int fentry_attached(u64 *ctx)
{
	return attaches(ctx[0]) ? tell_program(0) : 0;
}

HOOK("lsm/socket_post_create")
int lsm_opened(u64 *ctx)
{
	return opened(ctx);
}
HOOK("lsm/socket_bind")
int lsm_bound(u64 *ctx)
{
	return bound(ctx);
}
HOOK("lsm/socket_setsockopt")
int lsm_option(u64 *ctx)
{
	return option(ctx);
}
HOOK("lsm/file_receive")
int lsm_received(u64 *ctx)
{
	return received(ctx);
}

/* The same without a BPF LSM: the functions that call it have the same arguments, and their result. */
HOOK("fexit/security_socket_post_create")
int fexit_opened(u64 *ctx)
{
	return (s32)ctx[5] == 0 ? opened(ctx) : 0;
}
HOOK("fexit/security_socket_bind")
int fexit_bound(u64 *ctx)
{
	return (s32)ctx[3] == 0 ? bound(ctx) : 0;
}
HOOK("fexit/security_socket_setsockopt")
int fexit_option(u64 *ctx)
{
	return (s32)ctx[3] == 0 ? option(ctx) : 0;
}
HOOK("fexit/security_file_receive")
int fexit_received(u64 *ctx)
{
	return (s32)ctx[1] == 0 ? received(ctx) : 0;
}

/* net/socket.c: the last descriptor of a socket is gone. */
HOOK("fentry/sock_close")
int closed(u64 *ctx)
{
	struct file *file = (void *)ctx[1];
	struct socket *sock = READ(file, private_data);
	return family_of(sock) ? tell((u64)sock, CLOSE, 0) : 0;
}

/* Whether a classic filter drops anything: a lone `ret` of other than 0 passes all (libpcap attaches it
 * where the user gave no filter). */
static inline_always u16 drops(u16 length, void *instructions)
{
	struct {
		u16 code;
		u8 jt;
		u8 jf;
		u32 k;
	} first = {};
	read_user(&first, sizeof(first), instructions);
	return !(length == 1 && first.code == 6 && first.k);
}

static inline_always int filter(struct sock *sk, u16 on)
{
	if (!is_handle(READ(sk, __sk_common.skc_family), READ(sk, sk_type)))
		return 0;
	struct socket *sock = READ(sk, sk_socket);
	return sock ? tell((u64)sock, FILTER, on) : 0;
}

/* net/core/filter.c: called with a copy of struct sock_fprog, whose program is still user space's. */
HOOK("fexit/sk_attach_filter")
int filtered(u64 *ctx)
{
	struct sock_fprog *program = (void *)ctx[0];
	if ((s32)ctx[2] != 0)
		return 0;
	return filter((void *)ctx[1], drops(READ(program, len), READ(program, filter)));
}

/* A filter of eBPF, SO_ATTACH_BPF: what it lets pass is not known. */
HOOK("fexit/sk_attach_bpf")
int filtered_bpf(u64 *ctx)
{
	return (s32)ctx[2] == 0 ? filter((void *)ctx[1], 1) : 0;
}

HOOK("fexit/sk_detach_filter")
int unfiltered(u64 *ctx)
{
	return (s32)ctx[1] == 0 ? filter((void *)ctx[0], 0) : 0;
}

/* net/core/dev.c: called for a packet socket's PACKET_MR_PROMISC once that is granted. */
HOOK("fentry/dev_set_promiscuity")
int promiscuous(u64 *ctx)
{
	struct net_device *device = (void *)ctx[0];
	s32 change = ctx[1];
	u64 thread = pid_tgid();
	struct membership *found = map_lookup(&memberships, &thread);
	if (!found)
		return 0;
	struct membership membership = *found;
	if ((change > 0) != membership.on || ktime() - membership.time > 50000000)
		return 0;
	map_delete(&memberships, &thread);
	struct handle_event *event = begin(PROMISC);
	if (!event)
		return 0;
	event->inode = membership.inode;
	event->net = membership.net;
	event->family = AF_PACKET;
	event->type = membership.type;
	event->on = membership.on;
	event->ifindex = READ(device, ifindex);
	read_kernel(event->interface, sizeof(event->interface), &device->name);
	end(event);
	return 0;
}

static inline_always int flags(u64 *ctx)
{
	struct net_device *device = (void *)ctx[0];
	u32 wanted = ctx[1];
	u32 now = READ(device, flags);
	if (!((wanted ^ now) & IFF_PROMISC))
		return 0;
	struct handle_event *event = begin(FLAGS);
	if (!event)
		return 0;
	struct net *net = READ(device, nd_net.net);
	event->net = READ(net, ns.inum);
	event->on = !!(wanted & IFF_PROMISC);
	event->ifindex = READ(device, ifindex);
	read_kernel(event->interface, sizeof(event->interface), &device->name);
	end(event);
	return 0;
}

/* SIOCSIFFLAGS and RTM_NEWLINK; the name is netif_change_flags since 6.15. */
HOOK("fentry/netif_change_flags")
int netif_flags(u64 *ctx)
{
	return flags(ctx);
}
HOOK("fentry/dev_change_flags")
int device_flags(u64 *ctx)
{
	return flags(ctx);
}

#include "syscalls.h"
