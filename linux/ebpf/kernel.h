/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The few kernel types and helpers that the programs use. Only the fields that are read are declared:
 * with preserve_access_index their offsets are those of the running kernel (CO-RE), so no vmlinux.h is
 * needed. A suffix after three underscores is dropped when types are matched.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;

#define SEC(name) __attribute__((section(name), used))
#define inline_always inline __attribute__((always_inline))
#define NULL ((void *)0)

/* include/uapi/linux/bpf.h: enum bpf_func_id, map types, flags. */
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static u64 (*const ktime)(void) = (void *)5;
static u64 (*const pid_tgid)(void) = (void *)14;
static struct task_struct *(*const current_task)(void) = (void *)35;
static long (*const read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*const read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*const read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static long (*const ring_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static void *(*const ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*const ring_submit)(void *data, u64 flags) = (void *)132;
static u64 (*const ring_query)(void *ring, u64 flags) = (void *)134;

enum { MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LRU_HASH = 9, MAP_RINGBUF = 27 };
enum { RING_NO_WAKEUP = 1, RING_FORCE_WAKEUP = 2, RING_AVAILABLE = 0 };

#define INT(name, value) int(*name)[value]

#define READ(from, field)                                                                              \
	({                                                                                             \
		__typeof__((from)->field) value_;                                                      \
		read_kernel(&value_, sizeof(value_), &(from)->field);                                  \
		value_;                                                                                \
	})
#define HAS(type, field) __builtin_preserve_field_info(((type *)0)->field, 2)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	u32 inum;
};
struct net {
	struct ns_common ns;
	struct hlist_head *dev_index_head;
};
struct hlist_node {
	struct hlist_node *next;
};
struct hlist_head {
	struct hlist_node *first;
};
struct net_device {
	char name[16];
	u32 flags;
	s32 ifindex;
	struct hlist_node index_hlist;
	struct {
		struct net *net;
	} nd_net;
};
struct sock_common {
	u16 skc_family;
	struct {
		struct net *net;
	} skc_net;
};
struct sock {
	struct sock_common __sk_common;
	u16 sk_type;
	u16 sk_protocol;
	struct socket *sk_socket;
};
struct inode {
	u16 i_mode;
	struct {
		u32 val;
	} i_uid;
	unsigned long i_ino;
};
struct socket {
	short type;
	struct sock *sk;
};
struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
};
struct vfsmount {
	struct dentry *mnt_root;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};
struct qstr {
	const u8 *name;
};
struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct fdtable {
	u32 max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
struct file {
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};
struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
};
struct fs_struct {
	struct path pwd;
};
struct upid {
	s32 nr;
	struct pid_namespace *ns;
};
struct pid {
	u32 level;
	struct upid numbers[1];
};
struct pid_namespace {
	struct ns_common ns;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct user_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
};
struct cred {
	struct {
		u32 val;
	} euid;
	struct user_namespace *user_ns;
};
struct tty_driver {
	s32 major;
	s32 minor_start;
};
struct tty_struct {
	struct tty_driver *driver;
	s32 index;
};
struct signal_struct {
	struct {
		s32 counter;
	} live;
	struct pid *pids[4];
	struct tty_struct *tty;
};
struct kernfs_node {
	struct kernfs_node *__parent;
	const char *name;
};
/* Before 6.15. */
struct kernfs_node___old {
	struct kernfs_node *parent;
};
struct cgroup_root;
struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};
struct cgroup_subsys_state {
	struct cgroup *cgroup;
};
struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};
struct thread_info {
	u32 status;
};
struct task_struct {
	struct thread_info thread_info;
	s32 pid;
	s32 tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	u64 start_boottime;
	u64 self_exec_id;
	struct cred *cred;
	char comm[16];
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct mm_struct *mm;
};
struct bpf_prog_aux {
	struct {
		long counter;
	} refcnt;
	u32 used_map_cnt;
	u32 id;
};
/* Numbers are compared; the type must be an enumeration as the kernel's is. */
enum bpf_prog_type { BPF_PROG_TYPE_UNSPEC };
struct bpf_prog {
	enum bpf_prog_type type;
	struct bpf_prog_aux *aux;
};
struct sock_fprog {
	u16 len;
	void *filter;
};
/* arch/x86/include/asm/ptrace.h */
struct pt_regs {
	unsigned long r10, r9, r8, cx, dx, si, di, bx, bp, orig_ax;
};
/* io_uring/net.c and include/linux/io_uring_types.h */
struct io_socket {
	s32 protocol;
	u32 file_slot;
};
struct io_cmd_data {
	u8 data[1];
};
struct io_kiocb {
	struct io_cmd_data cmd;
	u8 opcode;
	struct {
		s32 res;
	} cqe;
	struct io_ring_ctx *ctx;
};
struct io_rsrc_node {
	unsigned long file_ptr;
};
struct io_rsrc_data {
	u32 nr;
	struct io_rsrc_node **nodes;
};
struct io_file_table {
	struct io_rsrc_data data;
};
struct io_ring_ctx {
	struct io_file_table file_table;
};

#pragma clang attribute pop

#define container_of(pointer, type, member)                                                            \
	((type *)((void *)(pointer) - __builtin_preserve_field_info(((type *)0)->member, 0)))
