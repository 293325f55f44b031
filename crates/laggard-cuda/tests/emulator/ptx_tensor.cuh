// What `kernels/ptx_tensor.cuh` asks of a GPU, done by a CPU, in the manner of `ptx_async.cuh`:
// products and what is to be told of them are errands of the tensor cores, which do them one after
// the other.
#pragma once
#include "ptx_async.cuh"

const u32 kTensorLanes = 128;
const u32 kTensorColumns = 512;

struct TensorCores {
    u32 memory[kTensorLanes][kTensorColumns];
    bool taken;
    u32 block;
    std::deque<std::function<void()>> errands;
};
inline TensorCores tensor_cores;

// Where tensor memory begins: anywhere, so that nobody relies on it.
const u32 kTensorBegin = 0;

DEVICE void tensor_take(u32* address) {
    REQUIRE(is_shared(address, 4) && is_aligned(address, 4));
    if (lane_id() == 0) {
        REQUIRE(!tensor_cores.taken);
        tensor_cores.taken = true;
        memset(tensor_cores.memory, 0xff, sizeof(tensor_cores.memory));
        machine.at_end.push_back([] { REQUIRE(!tensor_cores.taken); });
    }
    __syncwarp();
    *address = kTensorBegin;
}
DEVICE void tensor_give_back(u32 address) {
    REQUIRE(address == kTensorBegin && mine().is_told);
    __syncwarp();
    if (lane_id() == 0) {
        REQUIRE(tensor_cores.taken && tensor_cores.errands.empty());
        tensor_cores.taken = false;
    }
}
DEVICE void tensor_tell() { mine().has_to_tell = false; }
DEVICE void tensor_told() { mine().is_told = true; }

inline void begin_on_tensor_cores(std::function<void()> errand) {
    tensor_cores.errands.push_back(errand);
    // Whichever of them comes, it is the oldest that is done.
    machine.errands.push_back([] {
        const std::function<void()> oldest = tensor_cores.errands.front();
        tensor_cores.errands.pop_front();
        oldest();
    });
}

// 9.7.16.4.1, "Shared memory descriptor".
inline Descriptor decoded_for_tensor(u64 bits) {
    REQUIRE(bits >> 61 == 2);        // 128-byte swizzling
    REQUIRE((bits >> 52 & 1) == 0);  // leading bytes are relative
    REQUIRE((bits >> 49 & 7) == 0);  // no offset of the pattern
    REQUIRE((bits >> 46 & 3) == 1);  // of this generation
    const auto field = [=](u32 first) { return static_cast<u32>(bits >> first & 0x3fff) << 4; };
    return {field(0), field(16), field(32)};
}

// 9.7.16.4.2, "Instruction descriptor", and 9.7.16.10.5, "Data path layout": of products with 128
// rows, each lane has one.
template <u32 kDepth, typename T>
void tensor_multiply_now(u32 sums, u64 bits_a, u64 bits_b, u32 what, bool add, float (*value)(T)) {
    const Descriptor a = decoded_for_tensor(bits_a);
    const Descriptor b = decoded_for_tensor(bits_b);
    const u32 columns = (what >> 17 & 63) * 8;
    const u32 rows = (what >> 24 & 31) * 16;
    const u32 first = sums & 0xffff;
    REQUIRE(rows == 128 && columns % 16 == 0 && columns > 0 && columns <= 256);
    REQUIRE(sums >> 16 == 0 && first + columns <= kTensorColumns);
    const auto number = [&](const Descriptor& of, bool is_transposed, u32 outer, u32 k) {
        T bits;
        memcpy(&bits, element_at(of, is_transposed, outer, k, sizeof(T)), sizeof(T));
        return value(bits);
    };
    std::vector<float> right(columns * kDepth);
    for (u32 column = 0; column < columns; column++) {
        for (u32 k = 0; k < kDepth; k++) {
            right[column * kDepth + k] = number(b, what >> 16 & 1, column, k);
        }
    }
    for (u32 row = 0; row < rows; row++) {
        float left[kDepth];
        for (u32 k = 0; k < kDepth; k++) {
            left[k] = number(a, what >> 15 & 1, row, k);
        }
        for (u32 column = 0; column < columns; column++) {
            float sum = 0;
            if (add) {
                memcpy(&sum, &tensor_cores.memory[row][first + column], 4);
            }
            for (u32 k = 0; k < kDepth; k++) {
                sum += left[k] * right[column * kDepth + k];
            }
            memcpy(&tensor_cores.memory[row][first + column], &sum, 4);
        }
    }
}
inline void check_tensor_use() { REQUIRE(tensor_cores.taken && mine().is_told); }

DEVICE void tensor_product_half(u32 sums, u64 a, u64 b, u32 what, u32 add) {
    check_tensor_use();
    REQUIRE((what & 0x7f) == 1 << 4); // dense, sums in f32
    const u32 type = what >> 7 & 7;
    REQUIRE(type <= 1 && (what >> 10 & 7) == type && (what >> 13 & 3) == 0);
    const auto value = type == 1 ? bf16_value : f16_value;
    begin_on_tensor_cores([=] { tensor_multiply_now<16>(sums, a, b, what, add != 0, value); });
}
DEVICE void tensor_product_8_bits(u32 sums, u64 a, u64 b, u32 what, u32 add) {
    check_tensor_use();
    // E4M3, whose rows are along the depth.
    REQUIRE((what & 0x1ffff) == 1 << 4);
    begin_on_tensor_cores([=] { tensor_multiply_now<32>(sums, a, b, what, add != 0, e4m3_value); });
}
DEVICE void tensor_arrive(Barrier* barrier) {
    REQUIRE(state_of(barrier).publisher == kPublished);
    begin_on_tensor_cores([=] { arrive_at(barrier, 0); });
}

const u32 kTensorRead = 32;

// What is read arrives in registers when it is waited for.
DEVICE void tensor_read(u32 (&to)[kTensorRead], u32 address) {
    check_tensor_use();
    const u32 lanes = address >> 16;
    const u32 first = address & 0xffff;
    REQUIRE(lanes == machine.self / kWarp % 4 * kWarp && first + kTensorRead <= kTensorColumns);
    u32* registers = to;
    const u32 lane = lanes + lane_id();
    mine().reads.push_back([=] { memcpy(registers, &tensor_cores.memory[lane][first], 128); });
    mine().has_to_tell = true;
}
DEVICE void tensor_read_end(u32 (&)[kTensorRead]) {
    for (const auto& read : mine().reads) {
        read();
    }
    mine().reads.clear();
}
