/*
 * A 32-bit program without any library: opens a packet socket, binds it to loopback and reads nothing.
 * gcc -m32 -nostdlib -static; it needs no 32-bit libraries to be built or run.
 */
enum { EXIT = 1, SOCKETCALL = 102, SOCKET = 1, BIND = 2 };

static long call(long number, long a, long b)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b) : "memory");
	return result;
}

/* struct sockaddr_ll on ETH_P_ALL and interface 1, which is loopback in each namespace. */
static struct {
	unsigned short family, protocol;
	int ifindex;
	char rest[12];
} address = { 17, 0x0300, 1, "" };

void _start(void)
{
	long socket[3] = { 17, 3, 0x0300 };
	long fd = call(SOCKETCALL, SOCKET, (long)socket);
	long bind[3] = { fd, (long)&address, sizeof(address) };
	long bound = fd < 0 ? fd : call(SOCKETCALL, BIND, (long)bind);
	/* ENOSYS: the kernel is built without that call. */
	call(EXIT, bound == 0 ? 0 : bound == -38 ? 77 : 1, 0);
}
