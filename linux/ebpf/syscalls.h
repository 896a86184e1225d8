/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The same events from the end of system calls, on x86_64, where the kernel lets no function be hooked.
 *
 * raw_syscalls:sys_exit sees all three ways in (64-bit, `int 0x80`, 32-bit programs), unlike the tracepoint
 * of a single call; what io_uring does is told by its own tracepoint. A close is not followed: the last
 * descriptor of a socket can go in too many ways, and the steady look sees it.
 */

enum { TS_COMPAT = 2 };
enum { SOL_SOCKET = 1, SO_ATTACH_FILTER = 26, SO_DETACH_FILTER = 27, SO_ATTACH_BPF = 50, SCM_RIGHTS = 1 };
enum { PACKET_MR_PROMISC = 1, SIOCSIFFLAGS = 0x8914, IORING_OP_SOCKET = 45 };
enum { DESCRIPTORS = 16, MESSAGES = 4 };

enum call { NONE, CALL_SOCKET, CALL_BIND, CALL_SETSOCKOPT, CALL_RECVMSG, CALL_RECVMMSG, CALL_GETFD, CALL_IOCTL, CALL_BPF };

struct call_args {
	u64 a, b, c, d;
};

/* arch/x86/entry/syscalls/syscall_64.tbl; from 512 on those of x32 programs. */
static inline_always enum call call_64(u32 number)
{
	switch (number & 0x3fffffff) {
	case 41:
		return CALL_SOCKET;
	case 49:
		return CALL_BIND;
	case 54:
	case 541:
		return CALL_SETSOCKOPT;
	case 47:
	case 519:
		return CALL_RECVMSG;
	case 299:
	case 537:
		return CALL_RECVMMSG;
	case 438:
		return CALL_GETFD;
	case 16:
	case 514:
		return CALL_IOCTL;
	case 321:
		return CALL_BPF;
	}
	return NONE;
}

/* arch/x86/entry/syscalls/syscall_32.tbl; 102 is socketcall. */
static inline_always enum call call_32(u32 number)
{
	switch (number) {
	case 359:
		return CALL_SOCKET;
	case 361:
		return CALL_BIND;
	case 366:
		return CALL_SETSOCKOPT;
	case 372:
		return CALL_RECVMSG;
	case 337:
	case 417:
		return CALL_RECVMMSG;
	case 438:
		return CALL_GETFD;
	case 54:
		return CALL_IOCTL;
	case 357:
		return CALL_BPF;
	}
	return NONE;
}

/* include/uapi/linux/net.h: SYS_SOCKET and so on. */
static inline_always enum call call_of_socketcall(u32 number)
{
	switch (number) {
	case 1:
		return CALL_SOCKET;
	case 2:
		return CALL_BIND;
	case 14:
		return CALL_SETSOCKOPT;
	case 17:
		return CALL_RECVMSG;
	case 19:
		return CALL_RECVMMSG;
	}
	return NONE;
}

/* The socket behind a descriptor of the current process; NULL for other files. */
static inline_always struct socket *socket_of_file(struct file *file)
{
	if (!file)
		return NULL;
	struct inode *inode = READ(file, f_inode);
	if ((READ(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	return READ(file, private_data);
}

static inline_always struct file *file_of(u32 fd)
{
	struct task_struct *task = current_task();
	struct files_struct *files = READ(task, files);
	struct fdtable *table = READ(files, fdt);
	if (fd >= READ(table, max_fds))
		return NULL;
	struct file **slots = READ(table, fd);
	struct file *file = NULL;
	read_kernel(&file, sizeof(file), slots + fd);
	return file;
}

static inline_always struct socket *socket_of(u32 fd)
{
	return socket_of_file(file_of(fd));
}

static inline_always void call_socket(struct call_args *args, s32 fd)
{
	u16 family = args->a;
	u16 type = args->b & 15;
	/* net/socket.c: __sock_create. */
	if (family == AF_INET && type == SOCK_PACKET)
		family = AF_PACKET;
	if (!is_handle(family, type))
		return;
	struct socket *sock = socket_of(fd);
	if (sock && family_of(sock))
		tell_opened((u64)sock, family, args->c);
}

static inline_always void call_bind(struct call_args *args)
{
	struct address address = {};
	struct socket *sock = socket_of(args->a);
	if (!sock)
		return;
	u16 family = family_of(sock);
	if (family != AF_PACKET && family != AF_XDP)
		return;
	/* An address may be shorter than what is read: then its page may end there. */
	if (read_user(&address, sizeof(address), (void *)args->b) &&
	    read_user(&address, 8, (void *)args->b))
		return;
	u64 *words = (void *)&address;
	tell_bound((u64)sock, family, words[0], words[1]);
}

ONCE int tell_promiscuous(u64 at, s32 ifindex, u32 on)
{
	struct socket *sock = (void *)at;
	struct handle_event *event = begin(PROMISC);
	if (!event)
		return 0;
	of_socket(event, sock);
	struct sock *sk = READ(sock, sk);
	event->on = on;
	event->ifindex = ifindex;
	name_of(event->interface, READ(sk, __sk_common.skc_net.net), ifindex);
	end(event);
	return 0;
}

static inline_always void call_setsockopt(struct call_args *args, u32 compat)
{
	s32 level = args->b;
	s32 name = args->c;
	if (level == SOL_SOCKET ? name != SO_ATTACH_FILTER && name != SO_DETACH_FILTER && name != SO_ATTACH_BPF
				: level != SOL_PACKET)
		return;
	struct socket *sock = socket_of(args->a);
	if (!sock)
		return;
	u16 family = family_of(sock);
	if (!family)
		return;
	if (level == SOL_SOCKET) {
		u16 on = name == SO_ATTACH_BPF;
		if (name == SO_ATTACH_FILTER) {
			struct {
				u16 len;
				u16 pad;
				u32 low;
				u64 wide;
			} program = {};
			read_user(&program, compat ? 8 : 16, (void *)args->d);
			on = drops(program.len, (void *)(compat ? (u64)program.low : program.wide));
		}
		tell((u64)sock, FILTER, on);
		return;
	}
	if (family != AF_PACKET)
		return;
	if (name == PACKET_RX_RING) {
		tell((u64)sock, RING, 1);
		return;
	}
	if (name != PACKET_ADD_MEMBERSHIP && name != PACKET_DROP_MEMBERSHIP)
		return;
	struct {
		s32 ifindex;
		u16 type;
		u16 length;
	} membership = {};
	read_user(&membership, sizeof(membership), (void *)args->d);
	if (membership.type != PACKET_MR_PROMISC)
		return;
	tell_promiscuous((u64)sock, membership.ifindex, name == PACKET_ADD_MEMBERSHIP);
}

ONCE int descriptor_received(u32 fd)
{
	struct socket *sock = socket_of(fd);
	if (sock && family_of(sock))
		tell((u64)sock, RECEIVE, 0);
	return 0;
}

/* struct msghdr as user space has it: the kernel has written back how much control data there is. */
static inline_always void message_received(u64 header, u32 compat)
{
	u64 control, left;
	if (compat) {
		u32 parts[7] = {};
		if (read_user(parts, sizeof(parts), (void *)header))
			return;
		control = parts[4];
		left = parts[5];
	} else {
		u64 parts[6] = {};
		if (read_user(parts, sizeof(parts), (void *)header))
			return;
		control = parts[4];
		left = parts[5];
	}
	u32 head = compat ? 12 : 16;
	if (!control || left < head + 4)
		return;
	struct {
		u32 level;
		u32 type;
	} kind = {};
	u64 length = 0;
	read_user(&length, compat ? 4 : 8, (void *)control);
	read_user(&kind, sizeof(kind), (void *)(control + head - 8));
	if (kind.level != SOL_SOCKET || kind.type != SCM_RIGHTS)
		return;
	if (length > left)
		length = left;
	for (u32 i = 0; i < DESCRIPTORS && head + (i + 1) * 4 <= length; i++) {
		u32 fd = 0;
		if (read_user(&fd, sizeof(fd), (void *)(control + head + i * 4)))
			return;
		descriptor_received(fd);
	}
}

ONCE int tell_flags(u64 from)
{
	struct {
		char name[16];
		u16 flags;
	} request = {};
	if (read_user(&request, sizeof(request), (void *)from))
		return 0;
	struct handle_event *event = begin(FLAGS);
	if (!event)
		return 0;
	event->net = event->who.net;
	event->on = !!(request.flags & IFF_PROMISC);
	__builtin_memcpy(event->interface, request.name, sizeof(event->interface));
	end(event);
	return 0;
}

static inline_always void call_bpf(struct call_args *args, u32 result)
{
	u32 command = args->a;
	if (attaches(command)) {
		tell_program(0);
		return;
	}
	struct file *file = command == BPF_PROG_LOAD ? file_of(result) : NULL;
	if (!file)
		return;
	struct bpf_prog *program = READ(file, private_data);
	if (sees_packets(READ(program, type)))
		tell_program((u64)program);
}

/* All system calls come through here: what is of no interest has to leave with few instructions, and so
 * without a helper. Programs of this type may read what is in the registers directly. */
SEC("tp_btf/sys_exit")
int call_ended(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	s32 result = ctx[1];
	if (result < 0)
		return 0;
	u32 number = regs->orig_ax;
	enum call call = call_64(number);
	enum call call32 = number == 102 ? CALL_SOCKET : call_32(number);
	if (call == NONE && call32 == NONE)
		return 0;
	struct task_struct *task = current_task();
	u32 compat = READ(task, thread_info.status) & TS_COMPAT;
	struct call_args args;
	if (!compat) {
		args.a = regs->di;
		args.b = regs->si;
		args.c = regs->dx;
		args.d = regs->r10;
	} else {
		call = call32;
		args.a = (u32)regs->bx;
		args.b = (u32)regs->cx;
		args.c = (u32)regs->dx;
		args.d = (u32)regs->si;
		if (number == 102) {
			u32 parts[4] = {};
			call = call_of_socketcall(args.a);
			/* socket and bind have three arguments. */
			if (read_user(parts, sizeof(parts), (void *)args.b) &&
			    read_user(parts, 12, (void *)args.b))
				return 0;
			args.a = parts[0];
			args.b = parts[1];
			args.c = parts[2];
			args.d = parts[3];
		}
	}
	switch (call) {
	case CALL_SOCKET:
		call_socket(&args, result);
		break;
	case CALL_BIND:
		call_bind(&args);
		break;
	case CALL_SETSOCKOPT:
		call_setsockopt(&args, compat);
		break;
	case CALL_RECVMSG:
		message_received(args.b, compat);
		break;
	case CALL_RECVMMSG:
		for (u32 i = 0; i < MESSAGES && (s32)i < result; i++)
			message_received(args.b + i * (compat ? 32 : 64), compat);
		break;
	case CALL_GETFD:
		descriptor_received(result);
		break;
	case CALL_IOCTL:
		if ((u32)args.b == SIOCSIFFLAGS)
			tell_flags(args.c);
		break;
	case CALL_BPF:
		call_bpf(&args, result);
		break;
	default:
		break;
	}
	return 0;
}

/* Since 5.19 `struct io_kiocb *` is the second argument; a descriptor may live in the ring's own table. */
SEC("raw_tp/io_uring_complete")
int ring_completed(u64 *ctx)
{
	struct io_kiocb *request = (void *)ctx[1];
	if (!request || READ(request, opcode) != IORING_OP_SOCKET)
		return 0;
	s32 result = READ(request, cqe.res);
	if (result < 0)
		return 0;
	struct io_socket *command = (void *)request + __builtin_preserve_field_info(request->cmd, 0);
	u32 slot = READ(command, file_slot);
	struct socket *sock = NULL;
	if (!slot) {
		sock = socket_of(result);
	} else if (HAS(struct io_rsrc_node, file_ptr) && HAS(struct io_file_table, data)) {
		/* IORING_FILE_INDEX_ALLOC: the slot is the result (io_uring/io_uring.h). */
		struct io_ring_ctx *ring = READ(request, ctx);
		u32 index = slot == ~0u ? (u32)result : slot - 1;
		if (index >= READ(ring, file_table.data.nr))
			return 0;
		struct io_rsrc_node **nodes = READ(ring, file_table.data.nodes);
		struct io_rsrc_node *node = NULL;
		read_kernel(&node, sizeof(node), nodes + index);
		/* The two low bits are flags (io_uring/filetable.h: FFS_MASK). */
		if (node)
			sock = socket_of_file((void *)(READ(node, file_ptr) & ~3ul));
	} else {
		return tell_opened(0, 0, 0);
	}
	u16 family = sock ? family_of(sock) : 0;
	if (!family)
		return 0;
	return tell_opened((u64)sock, family, READ(command, protocol));
}
