/* A stand-in for libnccl.so.2: NCCL's semantics between ranks that are threads of a process or
 * processes of a machine, on memory that each host can address. What a call does is done by host
 * functions on the streams of the driver that the process has loaded, itself a stand-in. As with
 * NCCL,
 *  - communicators never block: making one, and the first calls, are in progress for a while;
 *  - calls of one communicator are done in the order in which they were made, also across streams;
 *  - ranks that disagree about a call, never come or are killed, hang the others until they abort.
 * Ranks of a communicator meet in a file that its unique id names, in the folder of
 * LAGGARD_FAKE_NCCL, else /tmp; their bytes travel by files beside it. The last one that leaves
 * removes them; those of ranks that were killed stay.
 * Built with VERSION, and with OLD for one that lacks what newer versions have. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION 23007
#endif

#include "nccl_clique.h"
#include "nccl_numbers.h"

enum { SUCCESS, UNHANDLED_CUDA, SYSTEM, INTERNAL, BAD_ARGUMENT, BAD_USAGE, REMOTE, IN_PROGRESS };
enum { SUM, PROD, MAX, MIN, AVG };
enum { ALL_REDUCE, REDUCE_SCATTER, REDUCE, ALL_GATHER, BROADCAST, SEND, RECV };

typedef struct { char bytes[128]; } Id;

typedef struct {
    size_t size;
    unsigned magic, version;
    int blocking, cga, least, most;
    const char *net;
    int split_share;
} Config;

typedef struct { size_t size; unsigned magic, version; float time; } Estimate;

typedef struct Comm Comm;

typedef struct {
    Post post;
    const void *send;
    void *recv;
    Comm *comm;
    void *stream;
} Op;

struct Comm {
    Clique *clique;
    char name[200];
    int rank, aborted, progress_left;
    unsigned long tickets, turn;
};

typedef struct { Comm *comm; unsigned long ticket; int count; Op ops[]; } Batch;

static _Thread_local int depth;
static _Thread_local int queued;
static _Thread_local Op queue[256];

/* What tests ask for, of the process. */
static int stalls, broken_rank = -1, most_seen;
static long registered;

void fakeNcclStall(int yes) { stalls = yes; }
void fakeNcclBreak(int rank) { broken_rank = rank; }
int fakeNcclMost(void) { return most_seen; }
long fakeNcclRegistered(void) { return registered; }

/* Bytes to or from a place in a file beside that of the clique. */
static void carry(Comm *comm, const char *file, int is_write, size_t at, void *data, size_t bytes) {
    char path[256];
    snprintf(path, sizeof path, "%s.%s", comm->name, file);
    int fd = open(path, is_write ? O_WRONLY | O_CREAT : O_RDONLY, 0600);
    for (size_t done = 0; fd >= 0 && done < bytes;) {
        char *from = (char *)data + done;
        ssize_t some = is_write ? pwrite(fd, from, bytes - done, at + done)
            : pread(fd, from, bytes - done, at + done);
        if (some <= 0) give_up("bytes that ranks exchange are lost");
        done += some;
    }
    if (fd < 0 && bytes > 0) give_up("a file that ranks exchange bytes by is lost");
    if (fd >= 0) close(fd);
}

static int driver(const char *name, void **function) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *function = library ? dlsym(library, name) : NULL;
    return *function ? SUCCESS : UNHANDLED_CUDA;
}

/* Whether the calling thread has a context, without which NCCL can do nothing. */
static int has_context(void) {
    int (*current)(void **);
    void *context = NULL;
    if (driver("cuCtxGetCurrent", (void **)&current)) return 0;
    return current(&context) == 0 && context != NULL;
}

/* Where bytes of the device really are, to be asked when a stream is at the work. */
static void *reach(const void *address, size_t bytes) {
    void *(*function)(const void *, size_t);
    if (bytes == 0) return NULL;
    void *at = driver("laggard_fake_cuda_reach", (void **)&function)
        ? NULL : function(address, bytes);
    if (!at) {
        fprintf(stderr, "fake NCCL: %zu bytes at %p are not the device's\n", bytes, address);
        abort();
    }
    return at;
}

/* Averages of floats multiply before they add, as NCCL's do; those of integers divide after. */
static double reduced(const Post *post, int ranks, char **inputs, size_t i) {
    int is_integer = post->type == 2 || post->type == 4;
    double scale = rounded(post->type, 1.0 / ranks), all = 0;
    for (int rank = 0; rank < ranks; rank++) {
        double one = load(post->type, inputs[rank], i);
        if (post->op == AVG && !is_integer) one *= scale;
        if (rank == 0) all = one;
        else if (post->op == MAX) all = one > all ? one : all;
        else if (post->op == MIN) all = one < all ? one : all;
        else all += one;
    }
    return post->op == AVG && is_integer ? trunc(all / ranks) : all;
}

/* Bytes that a rank brings to a collective. */
static size_t brought(const Post *post, int rank, int ranks) {
    size_t bytes = post->count * size_of(post->type);
    if (post->kind == BROADCAST && rank != post->peer) return 0;
    return post->kind == REDUCE_SCATTER ? bytes * ranks : bytes;
}

/* All ranks have come: the last one makes of what they brought what they came for. */
static void collect(Comm *comm) {
    Clique *clique = comm->clique;
    Post post = clique->posts[0];
    int ranks = clique->ranks;
    char *inputs[MOST_RANKS], name[16];
    for (int rank = 0; rank < ranks; rank++) {
        /* Whoever lets ranks that disagree come so far would hang, or have wrong numbers. */
        if (memcmp(&clique->posts[rank], &post, sizeof post)) give_up("ranks disagree");
        size_t bytes = brought(&post, rank, ranks);
        inputs[rank] = malloc(bytes + 1);
        snprintf(name, sizeof name, "%d", rank);
        carry(comm, name, 0, 0, inputs[rank], bytes);
    }
    size_t bytes = post.count * size_of(post.type);
    if (post.kind == BROADCAST) carry(comm, "all", 1, 0, inputs[post.peer], bytes);
    else if (post.kind == ALL_GATHER)
        for (int rank = 0; rank < ranks; rank++)
            carry(comm, "all", 1, rank * bytes, inputs[rank], bytes);
    else {
        size_t total = brought(&post, 0, ranks);
        char *result = malloc(total + 1);
        for (size_t i = 0; i < total / size_of(post.type); i++)
            store(post.type, result, i, reduced(&post, ranks, inputs, i));
        carry(comm, "all", 1, 0, result, total);
        free(result);
    }
    for (int rank = 0; rank < ranks; rank++) free(inputs[rank]);
}

/* Under the lock. What one collective left is read before any rank comes to the next. */
static void meet(Comm *comm, Op *op) {
    Clique *clique = comm->clique;
    Post *post = &op->post;
    size_t bytes = post->count * size_of(post->type);
    size_t own = brought(post, comm->rank, clique->ranks);
    char name[16];
    snprintf(name, sizeof name, "%d", comm->rank);
    carry(comm, name, 1, 0, reach(op->send, own), own);
    unsigned long generation = clique->generation;
    memset(&clique->posts[comm->rank], 0, sizeof *post);
    clique->posts[comm->rank] = *post;
    if (++clique->arrived == clique->ranks) {
        collect(comm);
        clique->arrived = 0;
        clique->generation++;
        ring(clique);
    }
    while (clique->generation == generation && !comm->aborted) await_news(clique);
    if (comm->aborted) return;
    if (post->kind == REDUCE && comm->rank != post->peer) return;
    size_t due = post->kind == ALL_GATHER ? bytes * clique->ranks : bytes;
    size_t at = post->kind == REDUCE_SCATTER ? comm->rank * bytes : 0;
    carry(comm, "all", 0, at, reach(op->recv, due), due);
}

/* Under the lock. */
static void exchange(Comm *comm, Op *ops, int count) {
    Clique *clique = comm->clique;
    unsigned long *numbers = calloc(count + 1, sizeof *numbers);
    char name[32];
    for (int i = 0; i < count; i++) {
        if (ops[i].post.kind != SEND) continue;
        int to = ops[i].post.peer;
        Mail *mail = &clique->mail[comm->rank][to];
        size_t bytes = ops[i].post.count * size_of(ops[i].post.type);
        if (mail->sent == mail->taken) mail->end = 0;
        if (mail->sent - mail->taken == MOST_LETTERS) give_up("too many messages wait");
        snprintf(name, sizeof name, "%d.%d", comm->rank, to);
        carry(comm, name, 1, mail->end, reach(ops[i].send, bytes), bytes);
        mail->letters[mail->sent % MOST_LETTERS].at = mail->end;
        mail->letters[mail->sent % MOST_LETTERS].bytes = bytes;
        mail->end += bytes;
        numbers[i] = ++mail->sent;
    }
    ring(clique);
    for (int i = 0; i < count; i++) {
        if (ops[i].post.kind != RECV) continue;
        int from = ops[i].post.peer;
        Mail *mail = &clique->mail[from][comm->rank];
        while (mail->sent == mail->taken && !comm->aborted) await_news(clique);
        if (comm->aborted) break;
        size_t bytes = ops[i].post.count * size_of(ops[i].post.type);
        size_t at = mail->letters[mail->taken % MOST_LETTERS].at;
        if (bytes != mail->letters[mail->taken % MOST_LETTERS].bytes)
            give_up("a message is not as long as it should be");
        snprintf(name, sizeof name, "%d.%d", from, comm->rank);
        carry(comm, name, 0, at, reach(ops[i].recv, bytes), bytes);
        mail->taken++;
        ring(clique);
    }
    for (int i = 0; i < count; i++) {
        if (ops[i].post.kind != SEND) continue;
        Mail *mail = &clique->mail[comm->rank][ops[i].post.peer];
        while (mail->taken < numbers[i] && !comm->aborted) await_news(clique);
    }
    free(numbers);
}

/* What a stream does when it comes to a group of calls. */
static void run(void *data) {
    Batch *batch = data;
    Comm *comm = batch->comm;
    lock(comm->clique);
    while (comm->turn != batch->ticket && !comm->aborted) await_news(comm->clique);
    for (int i = 0; i < batch->count && !comm->aborted; i++)
        if (batch->ops[i].post.kind < SEND) meet(comm, &batch->ops[i]);
    if (!comm->aborted) exchange(comm, batch->ops, batch->count);
    comm->turn++;
    ring(comm->clique);
    unlock(comm->clique);
}

int ncclGetVersion(int *version) { *version = VERSION; return SUCCESS; }

int ncclGetUniqueId(Id *id) {
    static uint32_t ids;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t words[3] = {(uint64_t)getpid(), (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec,
                         __sync_add_and_fetch(&ids, 1)};
    memset(id, 0, sizeof *id);
    memcpy(id->bytes + 8, words, sizeof words);
    return SUCCESS;
}

const char *ncclGetErrorString(int code) {
    static const char *names[] = {"no error", "unhandled cuda error", "unhandled system error",
        "internal error", "invalid argument", "invalid usage",
        "remote process exited or there was a network error", "NCCL operation in progress"};
    return code >= 0 && code <= IN_PROGRESS ? names[code] : "unknown result code";
}

const char *ncclGetLastError(Comm *comm) {
    (void)comm;
    return broken_rank >= 0 ? "socketProgress: Connection closed by remote peer" : "";
}

int ncclCommInitRankConfig(Comm **comm, int ranks, Id id, int rank, Config *config) {
    const char *folder = getenv("LAGGARD_FAKE_NCCL");
    uint64_t words[3];
    if (!has_context()) return UNHANDLED_CUDA;
    if (config->magic != 0xcafebeef || config->size > 200 || config->blocking != 0) {
        return BAD_ARGUMENT;
    }
    if (ranks > MOST_RANKS || rank < 0 || rank >= ranks) return BAD_ARGUMENT;
    Comm *made = calloc(1, sizeof *made);
    memcpy(words, id.bytes + 8, sizeof words);
    snprintf(made->name, sizeof made->name, "%s/fake-nccl.%llx.%llx.%llx", folder ? folder : "/tmp",
             (unsigned long long)words[0], (unsigned long long)words[1],
             (unsigned long long)words[2]);
    made->clique = clique_of(made->name, ranks, VERSION);
    if (!made->clique) return SYSTEM;
    /* NCCL refuses others too, or hangs. */
    if (made->clique->version != VERSION || made->clique->ranks != ranks) return BAD_USAGE;
    made->rank = rank;
    lock(made->clique);
    made->clique->joined++;
    unlock(made->clique);
    if (config->most != INT_MIN) most_seen = config->most;
    *comm = made;
    return IN_PROGRESS;
}

int ncclCommGetAsyncError(Comm *comm, int *state) {
    lock(comm->clique);
    *state = SUCCESS;
    if (comm->rank == broken_rank) *state = REMOTE;
    else if (stalls || comm->clique->joined < comm->clique->ranks) *state = IN_PROGRESS;
    else if (comm->progress_left > 0) {
        comm->progress_left--;
        *state = IN_PROGRESS;
    }
    unlock(comm->clique);
    return SUCCESS;
}

int ncclCommFinalize(Comm *comm) { comm->progress_left = 1; return IN_PROGRESS; }

/* Streams may still hold work of it, so that nothing of it is freed. */
int ncclCommAbort(Comm *comm) {
    Clique *clique = comm->clique;
    char path[256];
    lock(clique);
    comm->aborted = 1;
    int is_last = ++clique->left == clique->ranks;
    ring(clique);
    unlock(clique);
    if (!is_last) return SUCCESS;
    unlink(comm->name);
    snprintf(path, sizeof path, "%s.all", comm->name);
    unlink(path);
    for (int i = 0; i < clique->ranks; i++) {
        snprintf(path, sizeof path, "%s.%d", comm->name, i);
        unlink(path);
        for (int to = 0; to < clique->ranks; to++) {
            snprintf(path, sizeof path, "%s.%d.%d", comm->name, i, to);
            unlink(path);
        }
    }
    return SUCCESS;
}

int ncclCommDestroy(Comm *comm) { return ncclCommAbort(comm); }

int ncclGroupStart(void) { depth++; return SUCCESS; }

int ncclGroupEnd(void) {
    if (--depth > 0 || queued == 0) return SUCCESS;
    int (*enqueue)(void *, void (*)(void *), void *);
    if (!has_context() || driver("cuLaunchHostFunc", (void **)&enqueue)) return UNHANDLED_CUDA;
    Comm *comm = queue[0].comm;
    Batch *batch = malloc(sizeof *batch + queued * sizeof *batch->ops);
    batch->comm = comm;
    batch->count = queued;
    memcpy(batch->ops, queue, queued * sizeof *queue);
    queued = 0;
    lock(comm->clique);
    batch->ticket = comm->tickets++;
    /* The first calls connect, which takes a while. */
    int is_first = batch->ticket < 2;
    comm->progress_left = is_first ? 3 : 0;
    unlock(comm->clique);
    if (enqueue(batch->ops[0].stream, run, batch)) return UNHANDLED_CUDA;
    return is_first ? IN_PROGRESS : SUCCESS;
}

static int put(Op op) {
    if (depth == 0) return BAD_USAGE;
    if (queued == 256 || (op.post.count && !op.send && !op.recv)) return BAD_ARGUMENT;
    queue[queued++] = op;
    return SUCCESS;
}

int ncclAllReduce(const void *send, void *recv, size_t count, int type, int op, Comm *comm,
                  void *stream) {
    return put((Op){{ALL_REDUCE, type, op, 0, count}, send, recv, comm, stream});
}

int ncclReduceScatter(const void *send, void *recv, size_t count, int type, int op, Comm *comm,
                      void *stream) {
    return put((Op){{REDUCE_SCATTER, type, op, 0, count}, send, recv, comm, stream});
}

int ncclReduce(const void *send, void *recv, size_t count, int type, int op, int root, Comm *comm,
               void *stream) {
    return put((Op){{REDUCE, type, op, root, count}, send, recv, comm, stream});
}

int ncclAllGather(const void *send, void *recv, size_t count, int type, Comm *comm, void *stream) {
    return put((Op){{ALL_GATHER, type, 0, 0, count}, send, recv, comm, stream});
}

int ncclBroadcast(const void *send, void *recv, size_t count, int type, int root, Comm *comm,
                  void *stream) {
    return put((Op){{BROADCAST, type, 0, root, count}, send, recv, comm, stream});
}

int ncclSend(const void *send, size_t count, int type, int peer, Comm *comm, void *stream) {
    return put((Op){{SEND, type, 0, peer, count}, send, NULL, comm, stream});
}

int ncclRecv(void *recv, size_t count, int type, int peer, Comm *comm, void *stream) {
    return put((Op){{RECV, type, 0, peer, count}, NULL, recv, comm, stream});
}

#ifndef OLD
int ncclGroupSimulateEnd(Estimate *estimate) {
    if (estimate->magic != 0x74685283) return BAD_ARGUMENT;
    size_t bytes = 0;
    for (int i = 0; i < queued; i++) bytes += queue[i].post.count * size_of(queue[i].post.type);
    estimate->time = 5.0f + (float)bytes * 1e-3f;
    depth--;
    queued = 0;
    return SUCCESS;
}

int ncclCommRegister(Comm *comm, void *buffer, size_t bytes, void **handle) {
    (void)comm;
    *handle = buffer;
    registered += (long)bytes;
    return SUCCESS;
}

int ncclCommDeregister(Comm *comm, void *handle) {
    (void)comm;
    (void)handle;
    registered = 0;
    return SUCCESS;
}
#endif
