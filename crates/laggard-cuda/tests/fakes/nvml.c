/* A stand-in for libnvidia-ml.so.1: two GPUs. The first shows everything, is power-capped and has
 * just reported an Xid; the second shows little: some it does not have, some takes privileges, some
 * fails. Built with LOST, the second does not answer any more; with FALLS, whoever waits for events
 * hears of one and then that the GPU is lost; with OLD, functions have old names.
 *
 * Under LAGGARD_FAKE_NVML, as many GPUs as it says, at the addresses of the stand-in for the driver
 * and well, but for what it says: `gpus=2 1.sm_clock=1200 0.xid=94@3` has the second at 1200 MHz,
 * and the first report an Xid at the third reading of its clock. The last word counts; a value of
 * `hidden` is not visible. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10,
       LOST_CODE = 15, UNKNOWN = 999 };

typedef unsigned U;
typedef unsigned long long ULL;
typedef struct { int index; } Gpu;

static Gpu gpus[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
static int events;
static int readings[8];

static const struct { const char *name; ULL value; } WELL[] = {
    {"sm_clock", 1755}, {"memory_clock", 3201}, {"power", 650000}, {"power_limit", 700000},
    {"temperature", 60}, {"pcie_generation", 5}, {"pcie_width", 16}, {"processes", 1},
    {"nvlinks", 18}, {"nvlink_kib", 1000},
};

/* What the script says of a GPU by now: 1 if there is a script, 2 if that is not visible. What is
 * not said is well, or zero. */
static int scripted(Gpu *gpu, const char *name, ULL *value) {
    const char *word = getenv("LAGGARD_FAKE_NVML");
    if (word == NULL) return 0;
    *value = 0;
    for (size_t at = 0; at < sizeof WELL / sizeof *WELL; at++)
        if (strcmp(WELL[at].name, name) == 0) *value = WELL[at].value;
    char key[64];
    size_t length = (size_t)snprintf(key, sizeof key, "%d.%s=", gpu->index, name);
    int kind = 1;
    for (; word != NULL; word = strchr(word, ' ')) {
        while (*word == ' ') word++;
        if (strncmp(word, key, length) != 0) continue;
        char *end = (char *)word + length;
        int hidden = strncmp(end, "hidden", 6) == 0;
        ULL said = hidden ? 0 : strtoull(end, &end, 0);
        if (hidden) end += 6;
        if (*end == '@' && readings[gpu->index] < atoi(end + 1)) continue;
        *value = said;
        kind = hidden ? 2 : 1;
    }
    return kind;
}

static U scripted_gpus(void) {
    const char *word = getenv("LAGGARD_FAKE_NVML");
    const char *gpus = word == NULL ? NULL : strstr(word, "gpus=");
    return gpus == NULL ? 2 : (U)atoi(gpus + 5);
}

/* Ends a call whose value is in the script. */
#define SCRIPT(name, to)                                   \
    do {                                                   \
        ULL value;                                         \
        switch (scripted(gpu, name, &value)) {             \
        case 1: *to = (__typeof__(*to))value; return 0;    \
        case 2: return NO_PERMISSION;                      \
        }                                                  \
    } while (0)

static int second(Gpu *gpu, int code) {
#ifdef LOST
    code = LOST_CODE;
#endif
    return gpu->index == 1 ? code : 0;
}

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == UNKNOWN ? "Unknown Error" : "another"; }
int nvmlSystemGetDriverVersion(char *to, U room) { snprintf(to, room, "580.65.06"); return 0; }
int nvmlDeviceGetCount_v2(U *count) { *count = scripted_gpus(); return 0; }

int nvmlDeviceGetHandleByIndex_v2(U index, Gpu **gpu) { *gpu = &gpus[index]; return 0; }

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, Gpu **gpu) {
    if (getenv("LAGGARD_FAKE_NVML") != NULL) {
        U domain, bus;
        if (sscanf(pci, "%x:%x:", &domain, &bus) != 2) return NOT_FOUND;
        if (bus < 1 || bus > scripted_gpus()) return NOT_FOUND;
        *gpu = &gpus[bus - 1];
        return 0;
    }
    if (strstr(pci, "1b:00.0") == NULL) return NOT_FOUND;
    *gpu = &gpus[0];
    return 0;
}

int nvmlDeviceGetName(Gpu *gpu, char *to, U room) {
    snprintf(to, room, "Fake GPU %d", gpu->index);
    return second(gpu, 0);
}

int nvmlDeviceGetUUID(Gpu *gpu, char *to, U room) {
    snprintf(to, room, "GPU-%d", gpu->index);
    return second(gpu, 0);
}

int nvmlDeviceGetSerial(Gpu *gpu, char *to, U room) {
    snprintf(to, room, "165%d", gpu->index);
    return second(gpu, NOT_SUPPORTED);
}

typedef struct { char old[16]; U numbers[5]; char address[32]; } Pci;

int nvmlDeviceGetPciInfo_v3(Gpu *gpu, Pci *pci) {
    snprintf(pci->address, sizeof pci->address, "00000000:%cB:00.0", gpu->index ? '2' : '1');
    return second(gpu, 0);
}

int nvmlDeviceGetMigMode(Gpu *gpu, U *current, U *pending) {
    *pending = 0;
    SCRIPT("mig", current);
    *current = 1;
    *pending = 0;
    return second(gpu, NOT_SUPPORTED);
}

int nvmlDeviceGetComputeMode(Gpu *gpu, U *mode) { *mode = gpu->index ? 1 : 3; return 0; }
int nvmlDeviceGetMaxPcieLinkGeneration(Gpu *gpu, U *to) { *to = 5; return second(gpu, 0); }
int nvmlDeviceGetMaxPcieLinkWidth(Gpu *gpu, U *to) { *to = 16; return second(gpu, 0); }
int nvmlDeviceGetCurrPcieLinkGeneration(Gpu *gpu, U *to) {
    SCRIPT("pcie_generation", to);
    *to = 5;
    return second(gpu, 0);
}

int nvmlDeviceGetCurrPcieLinkWidth(Gpu *gpu, U *to) {
    SCRIPT("pcie_width", to);
    *to = 8;
    return second(gpu, 0);
}

int nvmlDeviceGetPcieReplayCounter(Gpu *gpu, U *to) {
    SCRIPT("pcie_replays", to);
    *to = 12;
    return second(gpu, UNKNOWN);
}

int nvmlDeviceGetPowerUsage(Gpu *gpu, U *to) {
    SCRIPT("power", to);
    *to = 599000;
    return second(gpu, NO_PERMISSION);
}


int nvmlDeviceGetEnforcedPowerLimit(Gpu *gpu, U *to) {
    SCRIPT("power_limit", to);
    *to = 600000;
    return second(gpu, NO_PERMISSION);
}

/* 1 is the multiprocessors' clock, 2 the memory's. */
int nvmlDeviceGetClockInfo(Gpu *gpu, U kind, U *to) {
    readings[gpu->index] += kind == 1;
    SCRIPT(kind == 1 ? "sm_clock" : "memory_clock", to);
    *to = kind == 1 ? 1380 : kind == 2 ? 3201 : 7;
    return second(gpu, 0);
}

int nvmlDeviceGetMaxClockInfo(Gpu *gpu, U kind, U *to) {
    *to = kind == 1 ? 1980 : 3201;
    return second(gpu, 0);
}

int nvmlDeviceGetTemperature(Gpu *gpu, U sensor, U *to) {
    SCRIPT("temperature", to);
    *to = sensor == 0 ? 71 : 0;
    return second(gpu, 0);
}

#ifdef OLD
int nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, ULL *mask) {
#else
int nvmlDeviceGetCurrentClocksEventReasons(Gpu *gpu, ULL *mask) {
#endif
    SCRIPT("reasons", mask);
    *mask = gpu->index ? 0x1 : 0x4 | 0x20;
    return second(gpu, 0);
}

int nvmlDeviceGetTotalEccErrors(Gpu *gpu, U kind, U counter, ULL *to) {
    SCRIPT(kind ? "ecc_uncorrected" : "ecc_corrected", to);
    *to = counter ? 1000000 : kind ? 1 : 42;
    return second(gpu, NOT_SUPPORTED);
}

int nvmlDeviceGetRemappedRows(Gpu *gpu, U *corrected, U *uncorrected, U *pending, U *failed) {
    *corrected = *uncorrected = *failed = 0;
    SCRIPT("remap_pending", pending);
    *corrected = 2;
    *uncorrected = 1;
    *pending = 1;
    *failed = 0;
    return second(gpu, NOT_SUPPORTED);
}

int nvmlDeviceGetNvLinkState(Gpu *gpu, U link, U *up) {
    ULL links;
    if (scripted(gpu, "nvlinks", &links)) {
        *up = 1;
        return link < links ? 0 : NOT_SUPPORTED;
    }
    *up = link != 1;
    return gpu->index || link > 2 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetNvLinkErrorCounter(Gpu *gpu, U link, U counter, ULL *to) {
    SCRIPT("nvlink_errors", to);
    *to = link * 10 + counter;
    return second(gpu, 0) || counter == 1 ? NO_PERMISSION : 0;
}

typedef struct { U pid; ULL memory; U gpu_instance, compute_instance; } Process;

int nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, U *count, Process *to) {
    U all = gpu->index ? 0 : 70, room = *count;
    ULL said;
    switch (scripted(gpu, "processes", &said)) {
    case 1: all = (U)said; break;
    case 2: return NO_PERMISSION;
    }
    *count = all;
    if (room < all) return INSUFFICIENT_SIZE;
    for (U i = 0; i < all; i++) to[i] = (Process){100 + i, i ? i << 20 : ~0ULL, 0, 0};
    return second(gpu, 0);
}

/* There is no nvmlDeviceGetMPSComputeRunningProcesses_v3. */

typedef struct { Gpu *gpu; ULL kind, data; U gpu_instance, compute_instance; } Event;

/* A set of events; under a script, of the GPU that was registered last. */
typedef struct { Gpu *gpu; ULL told; } Set;

int nvmlEventSetCreate(void **set) {
    if (getenv("LAGGARD_FAKE_NVML") == NULL) *set = &events;
    else *set = calloc(1, sizeof(Set));
    return 0;
}

int nvmlDeviceRegisterEvents(Gpu *gpu, ULL kinds, void *set) {
    if (kinds != 8) return 2;
    if (set == &events) return second(gpu, NOT_SUPPORTED);
    ((Set *)set)->gpu = gpu;
    return 0;
}

int nvmlEventSetFree(void *set) {
    if (set != &events) free(set);
    return 0;
}

int nvmlEventSetWait_v2(void *set, Event *event, U wait_ms) {
    if (wait_ms != 0) return 2;
    if (set != &events) {
        Set *own = set;
        ULL xid;
        if (scripted(own->gpu, "xid", &xid) != 1 || xid == own->told) return TIMEOUT;
        own->told = xid;
        *event = (Event){own->gpu, 8, xid, 0, 0};
        return 0;
    }
#ifdef FALLS
    if (events == 1) return LOST_CODE;
#endif
    if (events == 2) return TIMEOUT;
    *event = (Event){&gpus[0], 8, events++ ? 94 : 63, 0, 0};
    return 0;
}

typedef struct {
    U id, scope;
    long long timestamp, latency;
    U kind;
    int code;
    ULL value;
} Field;

/* Data over all links together, and only under a script: what was received is one more. */
int nvmlDeviceGetFieldValues(Gpu *gpu, int count, Field *fields) {
    for (int at = 0; at < count; at++) {
        ULL kib = 0;
        int is_data = fields[at].id == 138 || fields[at].id == 139;
        int is_known = fields[at].scope == ~0u && is_data;
        int is_shown = is_known && scripted(gpu, "nvlink_kib", &kib) == 1;
        fields[at].code = is_shown ? 0 : NOT_SUPPORTED;
        fields[at].value = kib + fields[at].id - 138;
    }
    return 0;
}
