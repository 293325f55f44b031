// What `kernels/ptx_async.cuh` asks of a GPU, done by a CPU: each instruction after its definition
// in the PTX ISA. What the hardware does at a time of its own is an errand here: it is run when a
// thread waits for it and not before, or at once, or at random, so that a kernel that relies on
// more than it has waited for computes something else.
#pragma once
#include "ptx.cuh"

// The hardware's is opaque; this one says what `TensorMap::fields` of the Rust side says.
struct alignas(128) TensorMap {
    const u8* address;
    u64 row_bytes;
    u32 columns;
    u32 rows;
    u32 box_columns;
    u32 box_rows;
    u32 element_bytes;
    u32 unused[23];
};
static_assert(sizeof(TensorMap) == 128, "as large as the hardware's");

inline Asynchronous& mine() { return machine.threads[machine.self]->asynchronous; }

// Shared memory begins after what the system keeps for itself, as on sm_90.
const u32 kSharedBegin = 1024;
inline u32 shared_address(const void* at) {
    REQUIRE(is_shared(at, 1));
    return static_cast<const u8*>(at) - shared + kSharedBegin;
}

typedef u64 Barrier;

// 9.7.13.15.1-2: what the 64 bits of a barrier hold, which nobody may look into.
struct BarrierState {
    u32 arrivals; // of each phase
    u32 pending;
    long long bytes;
    u64 phase;
    u32 publisher; // the thread whose fence is missing, or kPublished
};
const u32 kPublished = ~0u;
inline std::map<const Barrier*, BarrierState> barriers;
inline u32 barriers_of_block = ~0u;

inline BarrierState& state_of(const Barrier* barrier) {
    if (barriers_of_block != machine.block) {
        barriers.clear();
        barriers_of_block = machine.block;
    }
    REQUIRE(barriers.count(barrier));
    return barriers[barrier];
}

inline void end_phase_if_complete(BarrierState& state) {
    if (state.pending == 0 && state.bytes == 0) {
        state.phase++;
        state.pending = state.arrivals;
    }
}

DEVICE void barrier_init(Barrier* barrier, u32 arrivals) {
    REQUIRE(is_shared(barrier, 8) && is_aligned(barrier, 8));
    if (barriers_of_block != machine.block) {
        barriers.clear();
        barriers_of_block = machine.block;
    }
    REQUIRE(!barriers.count(barrier));
    barriers[barrier] = {arrivals, arrivals, 0, 0, machine.self};
}
DEVICE void barriers_publish() {
    for (auto& entry : barriers) {
        if (entry.second.publisher == machine.self) {
            entry.second.publisher = kPublished;
        }
    }
}
inline void arrive_at(Barrier* barrier, u32 bytes) {
    BarrierState& state = state_of(barrier);
    // 2^20 - 1 is the most of its count of bytes.
    REQUIRE(state.pending > 0 && state.bytes + bytes < 1 << 20);
    state.bytes += bytes;
    state.pending--;
    end_phase_if_complete(state);
}
DEVICE void barrier_arrive_expecting(Barrier* barrier, u32 bytes) {
    REQUIRE(!mine().has_to_tell);
    arrive_at(barrier, bytes);
}
DEVICE void barrier_arrive(Barrier* barrier) { barrier_arrive_expecting(barrier, 0); }
DEVICE void barrier_wait(Barrier* barrier, u32 parity) {
    REQUIRE(parity <= 1);
    state_of(barrier);
    mine().is_told = false;
    // A phase of this parity has ended if the one under way has the other parity.
    wait_until([=] { return (state_of(barrier).phase & 1) != parity; });
}
DEVICE void group_sync(u32 name, u32 threads) {
    REQUIRE(name > 0 && name < 16 && threads % kWarp == 0);
    meet(machine.named[name], threads);
}

// 5.5.7, the swizzling mode of 128 bytes: bits 4 to 6 of an address change with bits 7 to 9.
inline u32 swizzled_address(u32 address) { return address ^ (address >> 7 & 7) << 4; }

inline u8* in_shared(u32 address) {
    REQUIRE(address >= kSharedBegin && address - kSharedBegin < machine.shared_bytes);
    return shared + address - kSharedBegin;
}

// Each element of a box that lies within the matrix, and what of the box does not.
template <typename Inside, typename Outside>
void for_box(const TensorMap& map, u32 begin, u32 column, u32 row, Inside inside, Outside outside) {
    const u32 box_row_bytes = map.box_columns * map.element_bytes;
    REQUIRE(box_row_bytes == 128 && begin % 128 == 0);
    for (u32 i = 0; i < map.box_rows; i++) {
        for (u32 j = 0; j < map.box_columns; j++) {
            const u32 at = swizzled_address(begin + i * box_row_bytes + j * map.element_bytes);
            u8* element = in_shared(at);
            if (row + i < map.rows && column + j < map.columns) {
                inside(element, map.address + (row + i) * map.row_bytes +
                                    static_cast<u64>(column + j) * map.element_bytes);
            } else {
                outside(element);
            }
        }
    }
}

DEVICE void copy_box(void* to, const TensorMap* map, Barrier* barrier, u32 column, u32 row) {
    REQUIRE(is_aligned(map, 128) && state_of(barrier).publisher == kPublished);
    const u32 begin = shared_address(to);
    const u32 bytes = map->box_rows * map->box_columns * map->element_bytes;
    const auto errand = [=] {
        const u32 size = map->element_bytes;
        const auto copy = [=](u8* at, const u8* from) { memcpy(at, from, size); };
        for_box(*map, begin, column, row, copy, [=](u8* at) { memset(at, 0, size); });
        BarrierState& state = state_of(barrier);
        state.bytes -= bytes;
        REQUIRE(state.bytes >= 0);
        end_phase_if_complete(state);
    };
    if (machine.early) {
        errand();
    } else {
        machine.errands.push_back(errand);
    }
}

template <typename T> DEVICE void write_for_copy(u8* to, const T& value) {
    REQUIRE(is_shared(to, sizeof(T)) && is_aligned(to, sizeof(T)));
    mine().writes.push_back([=] { memcpy(to, &value, sizeof(T)); });
}
DEVICE void publish_writes() {
    for (const auto& write : mine().writes) {
        write();
    }
    mine().writes.clear();
}

// Runs the oldest of a thread's errands of one kind, if there is one.
inline void run_oldest(std::deque<Errand>& errands) {
    if (!errands.empty()) {
        const Errand errand = errands.front();
        errands.pop_front();
        errand.run();
    }
}
inline void begin_errand(std::deque<Errand>& errands, u64 group, std::function<void()> run) {
    errands.push_back({run, group});
    if (machine.random) {
        machine.errands.push_back([&errands] { run_oldest(errands); });
    }
}
inline void run_before(std::deque<Errand>& errands, u64 group) {
    while (!errands.empty() && errands.front().group < group) {
        run_oldest(errands);
    }
}

DEVICE void copy_box_back(const TensorMap* map, const void* from, u32 column, u32 row) {
    REQUIRE(is_aligned(map, 128));
    const u32 begin = shared_address(from);
    begin_errand(mine().copies_back, mine().groups_back, [=] {
        const u32 size = map->element_bytes;
        const auto copy = [=](const u8* at, const u8* to) {
            memcpy(const_cast<u8*>(to), at, size);
        };
        for_box(*map, begin, column, row, copy, [](u8*) {});
    });
}
DEVICE void copies_back_commit() { mine().groups_back++; }
template <int kOpen> DEVICE void copies_back_wait() {
    const u64 groups = mine().groups_back;
    run_before(mine().copies_back, groups > kOpen ? groups - kOpen : 0);
}

// 9.7.19.5, setmaxnreg. Registers are taken thread by thread here and warp by warp there, which is
// the same in sum.
template <u32 kRegisters> DEVICE void registers_release() {
    REQUIRE(kRegisters >= 24 && kRegisters % 8 == 0 && kRegisters <= mine().registers);
    machine.free_registers += mine().registers - kRegisters;
    mine().registers = kRegisters;
}
template <u32 kRegisters> DEVICE void registers_take() {
    REQUIRE(kRegisters <= 256 && kRegisters % 8 == 0 && kRegisters >= mine().registers);
    const u32 more = kRegisters - mine().registers;
    wait_until([=] { return machine.free_registers >= more; });
    machine.free_registers -= more;
    mine().registers = kRegisters;
}

// 9.7.15.5.1.2.2, "Matrix Descriptor Format".
struct Descriptor {
    u32 address;
    u32 leading_bytes;
    u32 stride_bytes;
};
inline Descriptor decoded(u64 bits) {
    REQUIRE(bits >> 62 == 1);        // 128-byte swizzling
    REQUIRE((bits >> 49 & 7) == 0);  // no offset of the pattern
    const auto field = [=](u32 first) { return static_cast<u32>(bits >> first & 0x3fff) << 4; };
    return {field(0), field(16), field(32)};
}

// Where an element of an operand is: `outer` is its row or column of the result. 9.7.15.5.1.2.1.1,
// "Strides": of rows of 128 bytes, eight are a pattern; patterns lie `stride_bytes` apart. If rows
// are along the depth, the descriptor's address is within the first of them. Else they are along
// `outer`, and each further 128 bytes of it lie `leading_bytes` apart.
inline u8* element_at(const Descriptor& d, bool is_transposed, u32 outer, u32 depth, u32 bytes) {
    u32 at;
    if (is_transposed) {
        const u32 across = 128 / bytes;
        at = d.address + outer / across * d.leading_bytes + depth / 8 * d.stride_bytes +
             depth % 8 * 128 + outer % across * bytes;
    } else {
        at = d.address + outer / 8 * d.stride_bytes + outer % 8 * 128 + depth * bytes;
    }
    return in_shared(swizzled_address(at));
}

const u32 kSums = 128;

DEVICE void products_begin() { mine().may_multiply = true; }
DEVICE void products_commit() { mine().groups_of_products++; }
template <int kOpen> DEVICE void products_wait() {
    const u64 groups = mine().groups_of_products;
    run_before(mine().products, groups > kOpen ? groups - kOpen : 0);
    // Stricter than the hardware: the sums are read or written after every wait.
    mine().may_multiply = false;
}
DEVICE void products_end(float (&)[kSums]) { products_wait<0>(); }

// 9.7.15.5.1.1.1, of wgmma.mma_async.m64n256: what one thread has of the result.
template <u32 kDepth, typename T>
void multiply_now(float* sums, u64 bits_a, u64 bits_b, bool add, u32 self, u32 transposes,
                  float (*value)(T)) {
    const Descriptor a = decoded(bits_a);
    const Descriptor b = decoded(bits_b);
    const u32 lane = self % kWarp;
    float left[2][kDepth];
    for (u32 i = 0; i < 2; i++) {
        for (u32 k = 0; k < kDepth; k++) {
            T bits;
            const u32 row = self % 128 / kWarp * 16 + lane / 4 + i * 8;
            memcpy(&bits, element_at(a, transposes & 1, row, k, sizeof(T)), sizeof(T));
            left[i][k] = value(bits);
        }
    }
    for (u32 j = 0; j < kSums / 4; j++) {
        for (u32 i = 0; i < 2; i++) {
            float right[kDepth];
            for (u32 k = 0; k < kDepth; k++) {
                T bits;
                const u32 column = j * 8 + lane % 4 * 2 + i;
                memcpy(&bits, element_at(b, transposes & 2, column, k, sizeof(T)), sizeof(T));
                right[k] = value(bits);
            }
            for (u32 row = 0; row < 2; row++) {
                float& sum = sums[j * 4 + row * 2 + i];
                sum = add ? sum : 0;
                for (u32 k = 0; k < kDepth; k++) {
                    sum += left[row][k] * right[k];
                }
            }
        }
    }
}
template <u32 kDepth, typename T>
void begin_product(float (&sums)[kSums], u64 a, u64 b, u32 add, u32 transposes, float (*value)(T)) {
    REQUIRE(mine().may_multiply);
    float* to = sums;
    const u32 self = machine.self;
    begin_errand(mine().products, mine().groups_of_products,
                 [=] { multiply_now<kDepth>(to, a, b, add != 0, self, transposes, value); });
}
template <bool kTransposeA, bool kTransposeB>
DEVICE void product_f16(float (&sums)[kSums], u64 a, u64 b, u32 add) {
    begin_product<16>(sums, a, b, add, kTransposeA + 2 * kTransposeB, f16_value);
}
template <bool kTransposeA, bool kTransposeB>
DEVICE void product_bf16(float (&sums)[kSums], u64 a, u64 b, u32 add) {
    begin_product<16>(sums, a, b, add, kTransposeA + 2 * kTransposeB, bf16_value);
}
DEVICE void product_e4m3(float (&sums)[kSums], u64 a, u64 b, u32 add) {
    begin_product<32>(sums, a, b, add, 0, e4m3_value);
}
