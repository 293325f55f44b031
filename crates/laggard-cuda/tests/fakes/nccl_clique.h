/* Where ranks of one or several processes meet: memory that all of them map, with a lock that
 * outlives processes that are killed. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What ranks must agree on. */
typedef struct {
    int kind, type, op, peer;
    size_t count;
} Post;

#define MOST_RANKS 16
#define MOST_LETTERS 64

/* Messages from one rank to another; bytes are in a file of this pair. */
typedef struct {
    unsigned long sent, taken;
    size_t end;
    struct { size_t at, bytes; } letters[MOST_LETTERS];
} Mail;

/* In the file that all ranks map. */
typedef struct {
    int is_ready;
    pthread_mutex_t lock;
    uint32_t bell;
    int version, ranks, joined, left, arrived;
    unsigned long generation;
    Post posts[MOST_RANKS];
    Mail mail[MOST_RANKS][MOST_RANKS];
} Clique;

static void give_up(const char *why) {
    fprintf(stderr, "fake NCCL: %s\n", why);
    abort();
}

/* A rank that was killed may have held it. */
static void lock(Clique *clique) {
    if (pthread_mutex_lock(&clique->lock) == EOWNERDEAD) pthread_mutex_consistent(&clique->lock);
}

static void unlock(Clique *clique) { pthread_mutex_unlock(&clique->lock); }

/* Under the lock. Conditions of pthreads do not outlive waiters that are killed. */
static void ring(Clique *clique) {
    clique->bell++;
    syscall(SYS_futex, &clique->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Under the lock, which others have meanwhile. */
static void await_news(Clique *clique) {
    struct timespec limit = {0, 20 * 1000 * 1000};
    uint32_t seen = clique->bell;
    unlock(clique);
    syscall(SYS_futex, &clique->bell, FUTEX_WAIT, seen, &limit, NULL, 0);
    lock(clique);
}

/* The file of a communicator, made by whoever comes first. */
static Clique *clique_of(const char *name, int ranks, int version) {
    int fd = open(name, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) || ftruncate(fd, sizeof(Clique))) return NULL;
    Clique *clique = mmap(NULL, sizeof *clique, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (clique == MAP_FAILED) return NULL;
    if (!clique->is_ready) {
        pthread_mutexattr_t shared;
        pthread_mutexattr_init(&shared);
        pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&clique->lock, &shared);
        clique->version = version;
        clique->ranks = ranks;
        clique->is_ready = 1;
    }
    flock(fd, LOCK_UN);
    close(fd);
    return clique;
}
