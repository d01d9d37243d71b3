/* SPDX-License-Identifier: Apache-2.0 */
/* A closed-loop load generator: N keep-alive connections, one tools/call in flight on each, for some seconds.
 * usage: load PORT PATH CONNECTIONS SECONDS; prints one JSON line {"count","errors","p50_us","p99_us","rate"}.
 * Each call has other arguments, so that no answer can be taken for a retry's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 256, MAX_SAMPLES = 8000000 };

struct connection {
	int fd;
	long long began_ns;
	char head[4096];
	size_t have, want; /* bytes of the answer seen and expected; want 0 while the head is incomplete */
	long long id;
	int failed; /* the status was not 200 */
};

static struct connection connections[MAX_CONNECTIONS];
static unsigned int *samples_ns;
static size_t count, errors;
static long long next_id = 1;
static const char *path;
static int port;

static long long now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void ask(struct connection *c)
{
	char body[512], request[1024];
	c->id = next_id++;
	int n = snprintf(body, sizeof body,
			 "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"n\":%lld},"
			 "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{},"
			 "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"load\",\"version\":\"1\"}}}}",
			 c->id, c->id);
	int total = snprintf(request, sizeof request,
			     "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
			     "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n"
			     "Mcp-Method: tools/call\r\nMcp-Name: echo\r\nContent-Length: %d\r\n\r\n%s",
			     path, port, n, body);
	c->have = c->want = 0;
	c->began_ns = now_ns();
	if (send(c->fd, request, total, MSG_NOSIGNAL) != total)
		errors++;
}

static int reached(struct connection *c)
{
	static char sink[1 << 18];
	for (;;) {
		int in_head = c->want == 0;
		ssize_t n = in_head ? recv(c->fd, c->head + c->have, sizeof c->head - 1 - c->have, MSG_DONTWAIT) : recv(c->fd, sink, sizeof sink, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -1;
		c->have += n;
		if (in_head) {
			c->head[c->have] = 0;
			char *end = strstr(c->head, "\r\n\r\n"), *length = strcasestr(c->head, "content-length:");
			if (!end) {
				if (c->have >= sizeof c->head - 1)
					return -1;
				continue;
			}
			if (!length || length > end)
				return -1;
			c->failed = strncmp(c->head, "HTTP/1.1 200", 12) != 0;
			c->want = (end + 4 - c->head) + strtoul(length + 15, NULL, 10);
		}
		if (c->have >= c->want) {
			if (count < MAX_SAMPLES)
				samples_ns[count++] = now_ns() - c->began_ns;
			errors += c->failed;
			ask(c);
			return 0;
		}
	}
}

static int ascending(const void *a, const void *b)
{
	unsigned int x = *(const unsigned int *)a, y = *(const unsigned int *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	port = atoi(argv[1]);
	path = argv[2];
	int many = atoi(argv[3]), one = 1, epoll = epoll_create1(0);
	double seconds = atof(argv[4]);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	if (many < 1 || many > MAX_CONNECTIONS)
		return 2;
	samples_ns = malloc(sizeof *samples_ns * MAX_SAMPLES);
	next_id = now_ns() / 1000; /* other arguments in another run, too */
	for (int i = 0; i < many; i++) {
		struct connection *c = &connections[i];
		c->fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
			perror("connect");
			return 1;
		}
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
		epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
		ask(c);
	}
	long long began = now_ns(), end = began + (long long)(seconds * 1e9);
	struct epoll_event events[MAX_CONNECTIONS];
	while (now_ns() < end) {
		int n = epoll_wait(epoll, events, MAX_CONNECTIONS, 100);
		for (int i = 0; i < n; i++)
			if (reached(events[i].data.ptr)) {
				fprintf(stderr, "a connection ended early\n");
				return 1;
			}
	}
	double took = (now_ns() - began) / 1e9;
	if (!count) {
		fprintf(stderr, "no answer at all\n");
		return 1;
	}
	qsort(samples_ns, count, sizeof *samples_ns, ascending);
	printf("{\"count\":%zu,\"errors\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"rate\":%.1f}\n", count, errors, samples_ns[count / 2] / 1e3,
	       samples_ns[count * 99 / 100] / 1e3, count / took);
	return 0;
}
