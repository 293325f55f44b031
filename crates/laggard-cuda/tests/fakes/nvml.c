/* A stand-in for libnvidia-ml.so.1: two GPUs. The first shows everything, is power-capped and has
 * just reported an Xid; the second shows little: some it does not have, some takes privileges, some
 * fails. Built with LOST, the second does not answer any more; with OLD, functions have old
 * names. */
#include <stdio.h>
#include <string.h>

enum { NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10,
       LOST_CODE = 15, UNKNOWN = 999 };

typedef unsigned U;
typedef unsigned long long ULL;
typedef struct { int index; } Gpu;

static Gpu gpus[2] = {{0}, {1}};
static int events;

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
int nvmlDeviceGetCount_v2(U *count) { *count = 2; return 0; }

int nvmlDeviceGetHandleByIndex_v2(U index, Gpu **gpu) { *gpu = &gpus[index]; return 0; }

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, Gpu **gpu) {
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
    *current = 1;
    *pending = 0;
    return second(gpu, NOT_SUPPORTED);
}

int nvmlDeviceGetComputeMode(Gpu *gpu, U *mode) { *mode = gpu->index ? 1 : 3; return 0; }
int nvmlDeviceGetMaxPcieLinkGeneration(Gpu *gpu, U *to) { *to = 5; return second(gpu, 0); }
int nvmlDeviceGetMaxPcieLinkWidth(Gpu *gpu, U *to) { *to = 16; return second(gpu, 0); }
int nvmlDeviceGetCurrPcieLinkGeneration(Gpu *gpu, U *to) { *to = 5; return second(gpu, 0); }
int nvmlDeviceGetCurrPcieLinkWidth(Gpu *gpu, U *to) { *to = 8; return second(gpu, 0); }
int nvmlDeviceGetPcieReplayCounter(Gpu *gpu, U *to) { *to = 12; return second(gpu, UNKNOWN); }
int nvmlDeviceGetPowerUsage(Gpu *gpu, U *to) { *to = 599000; return second(gpu, NO_PERMISSION); }

int nvmlDeviceGetEnforcedPowerLimit(Gpu *gpu, U *to) {
    *to = 600000;
    return second(gpu, NO_PERMISSION);
}

/* 1 is the multiprocessors' clock, 2 the memory's. */
int nvmlDeviceGetClockInfo(Gpu *gpu, U kind, U *to) {
    *to = kind == 1 ? 1380 : kind == 2 ? 3201 : 7;
    return second(gpu, 0);
}

int nvmlDeviceGetMaxClockInfo(Gpu *gpu, U kind, U *to) {
    *to = kind == 1 ? 1980 : 3201;
    return second(gpu, 0);
}

int nvmlDeviceGetTemperature(Gpu *gpu, U sensor, U *to) {
    *to = sensor == 0 ? 71 : 0;
    return second(gpu, 0);
}

#ifdef OLD
int nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, ULL *mask) {
#else
int nvmlDeviceGetCurrentClocksEventReasons(Gpu *gpu, ULL *mask) {
#endif
    *mask = gpu->index ? 0x1 : 0x4 | 0x20;
    return second(gpu, 0);
}

int nvmlDeviceGetTotalEccErrors(Gpu *gpu, U kind, U counter, ULL *to) {
    *to = counter ? 1000000 : kind ? 1 : 42;
    return second(gpu, NOT_SUPPORTED);
}

int nvmlDeviceGetRemappedRows(Gpu *gpu, U *corrected, U *uncorrected, U *pending, U *failed) {
    *corrected = 2;
    *uncorrected = 1;
    *pending = 1;
    *failed = 0;
    return second(gpu, NOT_SUPPORTED);
}

int nvmlDeviceGetNvLinkState(Gpu *gpu, U link, U *up) {
    *up = link != 1;
    return gpu->index || link > 2 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetNvLinkErrorCounter(Gpu *gpu, U link, U counter, ULL *to) {
    *to = link * 10 + counter;
    return second(gpu, 0) || counter == 1 ? NO_PERMISSION : 0;
}

typedef struct { U pid; ULL memory; U gpu_instance, compute_instance; } Process;

int nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, U *count, Process *to) {
    U all = gpu->index ? 0 : 70, room = *count;
    *count = all;
    if (room < all) return INSUFFICIENT_SIZE;
    for (U i = 0; i < all; i++) to[i] = (Process){100 + i, i ? i << 20 : ~0ULL, 0, 0};
    return second(gpu, 0);
}

/* There is no nvmlDeviceGetMPSComputeRunningProcesses_v3. */

typedef struct { Gpu *gpu; ULL kind, data; U gpu_instance, compute_instance; } Event;

int nvmlEventSetCreate(void **set) { *set = &events; return 0; }
int nvmlDeviceRegisterEvents(Gpu *gpu, ULL kinds, void *set) {
    (void)set;
    return kinds == 8 ? second(gpu, NOT_SUPPORTED) : 2;
}
int nvmlEventSetFree(void *set) { return set == &events ? 0 : 2; }

int nvmlEventSetWait_v2(void *set, Event *event, U wait_ms) {
    if (set != &events || wait_ms != 0) return 2;
    if (events == 2) return TIMEOUT;
    *event = (Event){&gpus[0], 8, events++ ? 94 : 63, 0, 0};
    return 0;
}
