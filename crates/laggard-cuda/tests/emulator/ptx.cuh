// What `kernels/ptx.cuh` asks of a GPU, done by a CPU, so that kernels can be executed where there
// is none. The instructions of a warp are written after their definitions in the PTX ISA, 9.7, and
// are strict where hardware is forgiving: misaligned addresses and bank conflicts end the program.
#pragma once
#include "machine.cuh"

// What each lane of the warp shows.
template <typename T> struct Shown {
    T lane[kWarp];
};
template <typename T> Shown<T> show(T mine) {
    static_assert(sizeof(T) <= sizeof(u64), "does not fit into a slot");
    const u32 first = machine.self / kWarp * kWarp;
    memcpy(&machine.slots[machine.self], &mine, sizeof(T));
    __syncwarp();
    Shown<T> shown;
    for (u32 i = 0; i < kWarp; i++) {
        memcpy(&shown.lane[i], &machine.slots[first + i], sizeof(T));
    }
    __syncwarp();
    return shown;
}
inline u32 lane_id() { return machine.self % kWarp; }
inline bool is_aligned(const void* address, u64 to) {
    return reinterpret_cast<uintptr_t>(address) % to == 0;
}
inline bool is_shared(const void* address, u64 bytes) {
    const u8* at = static_cast<const u8*>(address);
    return at >= shared && at + bytes <= shared + machine.shared_bytes;
}

DEVICE void copy_chunk(void* to, const void* global, u32 bytes) {
    REQUIRE(bytes <= 16 && bytes % 2 == 0);
    REQUIRE(is_aligned(to, 16) && is_aligned(global, 16));
    REQUIRE(is_shared(to, 16));
    Thread& thread = *machine.threads[machine.self];
    Copy copy = {to, {}, thread.group};
    memcpy(&copy.chunk, global, bytes);
    if (machine.early) {
        memcpy(to, &copy.chunk, 16);
    } else {
        thread.copies.push_back(copy);
    }
}
DEVICE void copies_commit() { machine.threads[machine.self]->group++; }
// Generations without such copies make them at once and have nothing to wait for.
DEVICE void arrive(u64 groups) {
    std::vector<Copy> later;
    Thread& thread = *machine.threads[machine.self];
    for (const Copy& copy : thread.copies) {
        if (copy.group < groups) {
            memcpy(copy.to, &copy.chunk, 16);
        } else {
            later.push_back(copy);
        }
    }
    thread.copies = later;
}
template <int kOpen> DEVICE void copies_wait() {
    const u64 group = machine.threads[machine.self]->group;
    arrive(group > kOpen ? group - kOpen : 0);
}

// 9.7.15.5.15, ldmatrix
DEVICE void load_rows(u32 (&to)[4], const void* row, bool transposed) {
    REQUIRE(is_shared(row, 16) && is_aligned(row, 16));
    const Shown<const void*> rows = show(row);
    const u32 lane = lane_id();
    for (u32 i = 0; i < 4; i++) {
        u32 banks = 0;
        for (u32 j = 0; j < 8; j++) {
            banks |= 1u << reinterpret_cast<uintptr_t>(rows.lane[8 * i + j]) / 16 % 8;
        }
        REQUIRE(banks == 0xff);
        const auto element = [&](u32 down, u32 across) -> u32 {
            const void* row_there = rows.lane[8 * i + (transposed ? across : down)];
            const u16* from = static_cast<const u16*>(row_there);
            return from[transposed ? down : across];
        };
        to[i] = element(lane / 4, lane % 4 * 2) | element(lane / 4, lane % 4 * 2 + 1) << 16;
    }
}
DEVICE void load_matrices(u32 (&to)[4], const void* row) { load_rows(to, row, false); }
DEVICE void load_matrices_transposed(u32 (&to)[4], const void* row) { load_rows(to, row, true); }

DEVICE float __uint_as_float(u32 bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
DEVICE u32 __float_as_uint(float value) {
    u32 bits;
    memcpy(&bits, &value, 4);
    return bits;
}

DEVICE float bf16_value(u16 bits) {
    const u32 wide = static_cast<u32>(bits) << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}
DEVICE u16 bf16_bits(float value) {
    u32 wide;
    memcpy(&wide, &value, 4);
    return std::isnan(value) ? 0x7fff : (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
}
DEVICE float f16_value(u16 bits) {
    _Float16 value;
    memcpy(&value, &bits, 2);
    return value;
}
DEVICE u16 f16_bits(float value) {
    const _Float16 half = value;
    u16 bits;
    memcpy(&bits, &half, 2);
    return bits;
}

// 9.7.15.5.8, mma.m16n8k16 with 16-bit elements: where elements are in the registers of which lane.
DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, float (*value)(u16)) {
    Shown<u32> left[4];
    for (u32 i = 0; i < 4; i++) {
        left[i] = show(a[i]);
    }
    const Shown<u32> right[2] = {show(b0), show(b1)};
    const auto half = [&](u32 pair, u32 which) { return value(pair >> (which * 16)); };
    const u32 lane = lane_id();
    for (u32 i = 0; i < 4; i++) {
        const u32 row = lane / 4 + i / 2 * 8;
        const u32 column = lane % 4 * 2 + i % 2;
        for (u32 k = 0; k < 16; k++) {
            const u32 of_a = row / 8 + k / 8 * 2;
            const float x = half(left[of_a].lane[row % 8 * 4 + k % 8 / 2], k % 2);
            const float y = half(right[k / 8].lane[column * 4 + k % 8 / 2], k % 2);
            c[i] += x * y;
        }
    }
}
DEVICE void multiply_add_f16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply(c, a, b0, b1, f16_value);
}
DEVICE void multiply_add_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply(c, a, b0, b1, bf16_value);
}

// OCP 8-bit floating point: 4 bits of exponent with a bias of 7, no infinities, NaN is all ones.
DEVICE float e4m3_value(u8 bits) {
    const int exponent = bits >> 3 & 15;
    const int mantissa = bits & 7;
    const float size = (bits & 0x7f) == 0x7f ? NAN
                       : exponent == 0      ? std::ldexp(mantissa, -9)
                                            : std::ldexp(8 + mantissa, exponent - 10);
    return bits & 0x80 ? -size : size;
}
// 9.7.15.5.9, mma.m16n8k32 with 8-bit elements.
DEVICE void multiply_add_e4m3(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    Shown<u32> left[4];
    for (u32 i = 0; i < 4; i++) {
        left[i] = show(a[i]);
    }
    const Shown<u32> right[2] = {show(b0), show(b1)};
    const auto number = [](u32 four, u32 which) { return e4m3_value(four >> (which * 8) & 0xff); };
    const u32 lane = lane_id();
    for (u32 i = 0; i < 4; i++) {
        const u32 row = lane / 4 + i / 2 * 8;
        const u32 column = lane % 4 * 2 + i % 2;
        for (u32 k = 0; k < 32; k++) {
            const u32 four_of_a = left[row / 8 + k / 16 * 2].lane[row % 8 * 4 + k % 16 / 4];
            const u32 four_of_b = right[k / 16].lane[column * 4 + k % 16 / 4];
            c[i] += number(four_of_a, k % 4) * number(four_of_b, k % 4);
        }
    }
}

// 9.7.15.4, wmma. Its fragments have no documented layout: here, each lane has half a row.
const u32 kWmma = 16;
template <bool kRowMajor> DEVICE void wmma_load(u32 (&to)[8], const u16* from, u32 pitch) {
    REQUIRE(is_aligned(from, 16) && pitch % 8 == 0);
    // Copies of sm_70 pass through registers: they are there when this thread goes on.
    const u32 row = lane_id() / 2;
    for (u32 i = 0; i < 8; i++) {
        const u32 column = lane_id() % 2 * 8 + i;
        const u16* at = from + (kRowMajor ? row * pitch + column : column * pitch + row);
        REQUIRE(is_shared(at, 2));
        to[i] = *at;
    }
}
template <bool kRowMajor> DEVICE void wmma_load_left(u32 (&to)[8], const u16* from, u32 pitch) {
    wmma_load<kRowMajor>(to, from, pitch);
}
template <bool kRowMajor> DEVICE void wmma_load_right(u32 (&to)[8], const u16* from, u32 pitch) {
    wmma_load<kRowMajor>(to, from, pitch);
}
template <bool, bool>
DEVICE void wmma_multiply_add(float (&c)[8], const u32 (&a)[8], const u32 (&b)[8]) {
    Shown<u32> left[8], right[8];
    for (u32 i = 0; i < 8; i++) {
        left[i] = show(a[i]);
        right[i] = show(b[i]);
    }
    const u32 row = lane_id() / 2;
    for (u32 i = 0; i < 8; i++) {
        const u32 column = lane_id() % 2 * 8 + i;
        for (u32 k = 0; k < kWmma; k++) {
            c[i] += f16_value(left[k % 8].lane[row * 2 + k / 8]) *
                    f16_value(right[column % 8].lane[k * 2 + column / 8]);
        }
    }
}
DEVICE void wmma_store(float* to, const float (&c)[8], u32 pitch) {
    REQUIRE(is_aligned(to, 16) && pitch % 4 == 0);
    float* at = to + lane_id() / 2 * pitch + lane_id() % 2 * 8;
    REQUIRE(is_shared(at, 32));
    memcpy(at, c, 32);
}

DEVICE float __shfl_xor_sync(u32, float value, u32 distance) {
    return show(value).lane[lane_id() ^ distance];
}
DEVICE double __shfl_xor_sync(u32, double value, u32 distance) {
    return show(value).lane[lane_id() ^ distance];
}
DEVICE u64 atomicAdd(u64* to, u64 value) {
    const u64 before = *to;
    *to += value;
    return before;
}
DEVICE float atomicAdd(float* to, float value) {
    const float before = *to;
    *to += value;
    return before;
}
DEVICE u64 atomicMin(u64* to, u64 value) {
    const u64 before = *to;
    *to = value < before ? value : before;
    return before;
}
DEVICE u32 min(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u64 cycles() { return machine.ticks += 7; }
DEVICE u64 global_timer_ns() { return machine.ticks += 32; }
DEVICE void pause_ns(u32 duration) { machine.ticks += duration; }
