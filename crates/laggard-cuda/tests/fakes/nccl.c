/* A stand-in for libnccl.so.2: NCCL's semantics between the threads of one process, on memory that
 * the host can address. What a call does is done by host functions on the streams of the driver
 * that the process has loaded, itself a stand-in. As with NCCL,
 *  - communicators never block: making one, and the first calls, are in progress for a while;
 *  - calls of one communicator are done in the order in which they were made, also across streams;
 *  - ranks that disagree about a call, or never come, hang until they are aborted.
 * Built with VERSION, and with OLD for one that lacks what newer versions have. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 23007
#endif

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
    int kind, type, op, peer;
    const void *send;
    void *recv;
    size_t count;
    Comm *comm;
    void *stream;
} Op;

typedef struct Letter {
    const void *data;
    size_t bytes;
    int done;
    struct Letter *next;
} Letter;

#define MOST_RANKS 16

typedef struct Clique {
    unsigned number;
    int ranks, joined, arrived;
    unsigned long generation;
    Op *posts[MOST_RANKS];
    Letter *letters[MOST_RANKS][MOST_RANKS];
    struct Clique *next;
} Clique;

struct Comm {
    Clique *clique;
    int rank, most, aborted, error, progress_left;
    unsigned long tickets, turn;
};

typedef struct { Comm *comm; unsigned long ticket; int count; Op ops[]; } Batch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static Clique *cliques;
static unsigned ids;
static _Thread_local int depth;
static _Thread_local int queued;
static _Thread_local Op queue[256];

/* What tests ask for. */
static int stalls, broken_rank = -1, most_seen;
static long registered;

void fakeNcclStall(int yes) { stalls = yes; }
void fakeNcclBreak(int rank) { broken_rank = rank; }
int fakeNcclMost(void) { return most_seen; }
long fakeNcclRegistered(void) { return registered; }

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

static size_t size_of(int type) {
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return sizes[type];
}

static double half_to_double(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value = exponent == 31 ? (fraction ? NAN : INFINITY)
        : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits & 0x8000 ? -value : value;
}

static uint16_t half_of_double(double value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double size = fabs(value);
    int exponent;
    if (isnan(value)) return 0x7e00;
    if (size == 0) return sign;
    if (size >= 65520) return sign | 0x7c00;
    frexp(size, &exponent);
    exponent = exponent < -13 ? -13 : exponent;
    /* Carries go into the exponent by themselves. */
    uint16_t scaled = (uint16_t)nearbyint(ldexp(size, 11 - exponent));
    return sign | (uint16_t)(scaled + ((exponent + 13) << 10));
}

static double load(int type, const void *at, size_t i) {
    uint32_t bits;
    float f;
    switch (type) {
    case 2: return ((const int32_t *)at)[i];
    case 4: return (double)((const int64_t *)at)[i];
    case 6: return half_to_double(((const uint16_t *)at)[i]);
    case 7: return ((const float *)at)[i];
    case 8: return ((const double *)at)[i];
    case 9:
        bits = (uint32_t)((const uint16_t *)at)[i] << 16;
        memcpy(&f, &bits, 4);
        return f;
    }
    abort();
}

static void store(int type, void *at, size_t i, double value) {
    uint32_t bits;
    float f;
    switch (type) {
    case 2: ((int32_t *)at)[i] = (int32_t)value; return;
    case 4: ((int64_t *)at)[i] = (int64_t)value; return;
    case 6: ((uint16_t *)at)[i] = half_of_double(value); return;
    case 7: ((float *)at)[i] = (float)value; return;
    case 8: ((double *)at)[i] = value; return;
    case 9:
        f = (float)value;
        memcpy(&bits, &f, 4);
        ((uint16_t *)at)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        return;
    }
    abort();
}

/* A value as the type holds it. */
static double rounded(int type, double value) {
    char room[8];
    store(type, room, 0, value);
    return load(type, room, 0);
}

/* Averages of floats multiply before they add, as NCCL's do; those of integers divide after. */
static double reduced(Clique *clique, const Op *op, size_t i) {
    int is_integer = op->type == 2 || op->type == 4;
    double scale = rounded(op->type, 1.0 / clique->ranks), all = 0;
    for (int rank = 0; rank < clique->ranks; rank++) {
        double one = load(op->type, clique->posts[rank]->send, i);
        if (op->op == AVG && !is_integer) one *= scale;
        if (rank == 0) all = one;
        else if (op->op == MAX) all = one > all ? one : all;
        else if (op->op == MIN) all = one < all ? one : all;
        else all += one;
    }
    return op->op == AVG && is_integer ? trunc(all / clique->ranks) : all;
}

/* All ranks have come: does what they came for. */
static void collect(Clique *clique) {
    Op **posts = clique->posts, *first = posts[0];
    size_t bytes = first->count * size_of(first->type);
    for (int rank = 1; rank < clique->ranks; rank++) {
        Op *other = posts[rank];
        if (other->kind != first->kind || other->type != first->type || other->op != first->op
            || other->count != first->count || other->peer != first->peer) {
            /* Whoever lets this come so far would hang, or have wrong numbers. */
            fprintf(stderr, "fake NCCL: ranks 0 and %d disagree\n", rank);
            abort();
        }
    }
    size_t total = first->kind == REDUCE_SCATTER ? first->count * clique->ranks : first->count;
    if (first->kind == ALL_GATHER || first->kind == BROADCAST) {
        for (int rank = 0; rank < clique->ranks; rank++)
            for (int from = 0; from < clique->ranks; from++) {
                if (first->kind == BROADCAST && from != first->peer) continue;
                size_t at = first->kind == BROADCAST ? 0 : from * bytes;
                memmove((char *)posts[rank]->recv + at, posts[from]->send, bytes);
            }
        return;
    }
    char *result = malloc(total * size_of(first->type) + 1);
    for (size_t i = 0; i < total; i++) store(first->type, result, i, reduced(clique, first, i));
    for (int rank = 0; rank < clique->ranks; rank++) {
        if (first->kind == REDUCE && rank != first->peer) continue;
        size_t at = first->kind == REDUCE_SCATTER ? rank * bytes : 0;
        memcpy(posts[rank]->recv, result + at, bytes);
    }
    free(result);
}

static void meet(Comm *comm, Op *op) {
    Clique *clique = comm->clique;
    size_t bytes = op->count * size_of(op->type), all = bytes * clique->ranks;
    op->send = op->kind == BROADCAST && comm->rank != op->peer ? NULL
        : reach(op->send, op->kind == REDUCE_SCATTER ? all : bytes);
    op->recv = op->kind == REDUCE && comm->rank != op->peer ? NULL
        : reach(op->recv, op->kind == ALL_GATHER ? all : bytes);
    unsigned long generation = clique->generation;
    clique->posts[comm->rank] = op;
    if (++clique->arrived == clique->ranks) {
        collect(clique);
        clique->arrived = 0;
        clique->generation++;
        pthread_cond_broadcast(&bell);
    }
    while (clique->generation == generation && !comm->aborted) pthread_cond_wait(&bell, &lock);
}

static void exchange(Comm *comm, Op *ops, int count) {
    Clique *clique = comm->clique;
    Letter **sent = calloc(count, sizeof *sent);
    for (int i = 0; i < count; i++) {
        if (ops[i].kind != SEND) continue;
        Letter **last = &clique->letters[comm->rank][ops[i].peer];
        while (*last) last = &(*last)->next;
        sent[i] = *last = calloc(1, sizeof **last);
        (*last)->bytes = ops[i].count * size_of(ops[i].type);
        (*last)->data = reach(ops[i].send, (*last)->bytes);
    }
    pthread_cond_broadcast(&bell);
    for (int i = 0; i < count; i++) {
        if (ops[i].kind != RECV) continue;
        Letter **first = &clique->letters[ops[i].peer][comm->rank];
        while (!*first && !comm->aborted) pthread_cond_wait(&bell, &lock);
        if (comm->aborted) return;
        size_t bytes = ops[i].count * size_of(ops[i].type);
        if (bytes != (*first)->bytes) {
            fprintf(stderr, "fake NCCL: %zu bytes come where %zu are expected\n",
                    (*first)->bytes, bytes);
            abort();
        }
        memcpy(reach(ops[i].recv, bytes), (*first)->data, bytes);
        (*first)->done = 1;
        *first = (*first)->next;
        pthread_cond_broadcast(&bell);
    }
    for (int i = 0; i < count; i++)
        while (sent[i] && !sent[i]->done && !comm->aborted) pthread_cond_wait(&bell, &lock);
}

/* What a stream does when it comes to a group of calls. */
static void run(void *data) {
    Batch *batch = data;
    Comm *comm = batch->comm;
    pthread_mutex_lock(&lock);
    while (comm->turn != batch->ticket && !comm->aborted) pthread_cond_wait(&bell, &lock);
    for (int i = 0; i < batch->count && !comm->aborted; i++)
        if (batch->ops[i].kind < SEND) meet(comm, &batch->ops[i]);
    if (!comm->aborted) exchange(comm, batch->ops, batch->count);
    comm->turn++;
    pthread_cond_broadcast(&bell);
    pthread_mutex_unlock(&lock);
}

int ncclGetVersion(int *version) { *version = VERSION; return SUCCESS; }

int ncclGetUniqueId(Id *id) {
    pthread_mutex_lock(&lock);
    unsigned number = ++ids;
    pthread_mutex_unlock(&lock);
    memset(id, 0, sizeof *id);
    memcpy(id->bytes + 8, &number, sizeof number);
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
    unsigned number;
    if (!has_context()) return UNHANDLED_CUDA;
    if (config->magic != 0xcafebeef || config->size > 200 || config->blocking != 0) {
        return BAD_ARGUMENT;
    }
    if (ranks > MOST_RANKS || rank < 0 || rank >= ranks) return BAD_ARGUMENT;
    memcpy(&number, id.bytes + 8, sizeof number);
    pthread_mutex_lock(&lock);
    Clique *clique = cliques;
    while (clique && clique->number != number) clique = clique->next;
    if (!clique) {
        clique = calloc(1, sizeof *clique);
        clique->number = number;
        clique->ranks = ranks;
        clique->next = cliques;
        cliques = clique;
    }
    clique->joined++;
    *comm = calloc(1, sizeof **comm);
    (*comm)->clique = clique;
    (*comm)->rank = rank;
    (*comm)->most = config->most;
    if (config->most != INT_MIN) most_seen = config->most;
    pthread_mutex_unlock(&lock);
    return IN_PROGRESS;
}

int ncclCommGetAsyncError(Comm *comm, int *state) {
    pthread_mutex_lock(&lock);
    *state = SUCCESS;
    if (comm->rank == broken_rank) *state = REMOTE;
    else if (stalls || comm->clique->joined < comm->clique->ranks) *state = IN_PROGRESS;
    else if (comm->progress_left > 0) {
        comm->progress_left--;
        *state = IN_PROGRESS;
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int ncclCommFinalize(Comm *comm) { comm->progress_left = 1; return IN_PROGRESS; }

/* Streams may still hold work of it, so that nothing is freed. */
int ncclCommAbort(Comm *comm) {
    pthread_mutex_lock(&lock);
    comm->aborted = 1;
    pthread_cond_broadcast(&bell);
    pthread_mutex_unlock(&lock);
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
    pthread_mutex_lock(&lock);
    batch->ticket = comm->tickets++;
    /* The first calls connect, which takes a while. */
    int is_first = batch->ticket < 2;
    comm->progress_left = is_first ? 3 : 0;
    pthread_mutex_unlock(&lock);
    if (enqueue(batch->ops[0].stream, run, batch)) return UNHANDLED_CUDA;
    return is_first ? IN_PROGRESS : SUCCESS;
}

static int put(Op op) {
    if (depth == 0) return BAD_USAGE;
    if (queued == 256 || (op.count && !op.send && !op.recv)) return BAD_ARGUMENT;
    queue[queued++] = op;
    return SUCCESS;
}

int ncclAllReduce(const void *send, void *recv, size_t count, int type, int op, Comm *comm,
                  void *stream) {
    return put((Op){ALL_REDUCE, type, op, 0, send, recv, count, comm, stream});
}

int ncclReduceScatter(const void *send, void *recv, size_t count, int type, int op, Comm *comm,
                      void *stream) {
    return put((Op){REDUCE_SCATTER, type, op, 0, send, recv, count, comm, stream});
}

int ncclReduce(const void *send, void *recv, size_t count, int type, int op, int root, Comm *comm,
               void *stream) {
    return put((Op){REDUCE, type, op, root, send, recv, count, comm, stream});
}

int ncclAllGather(const void *send, void *recv, size_t count, int type, Comm *comm, void *stream) {
    return put((Op){ALL_GATHER, type, 0, 0, send, recv, count, comm, stream});
}

int ncclBroadcast(const void *send, void *recv, size_t count, int type, int root, Comm *comm,
                  void *stream) {
    return put((Op){BROADCAST, type, 0, root, send, recv, count, comm, stream});
}

int ncclSend(const void *send, size_t count, int type, int peer, Comm *comm, void *stream) {
    return put((Op){SEND, type, 0, peer, send, NULL, count, comm, stream});
}

int ncclRecv(void *recv, size_t count, int type, int peer, Comm *comm, void *stream) {
    return put((Op){RECV, type, 0, peer, NULL, recv, count, comm, stream});
}

#ifndef OLD
int ncclGroupSimulateEnd(Estimate *estimate) {
    if (estimate->magic != 0x74685283) return BAD_ARGUMENT;
    size_t bytes = 0;
    for (int i = 0; i < queued; i++) bytes += queue[i].count * size_of(queue[i].type);
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
