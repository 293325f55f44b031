// Contents that can be checked without rounding: integers from -8 to 8 that follow from a seed and
// the position alone. A collective's result is checked where it lies, with no copy to the host.
#include "element.cuh"

struct Mismatches {
    u64 count;
    u64 first; // position of the first; the largest number if there is none
};

// The finaliser of splitmix64 (Steele, Lea and Flood 2014), so that neighbours differ.
DEVICE u64 mixed(u64 x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

DEVICE int integer_at(u64 seed, u64 position) {
    return static_cast<int>((mixed(seed + position * 0x9e3779b97f4a7c15ull) >> 32) % 17) - 8;
}

DEVICE u64 first() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE u64 step() { return static_cast<u64>(gridDim.x) * blockDim.x; }

// Fills with the integers of a seed; `offset` is the position of the first element.
extern "C" __global__ void fill_exact(Element* to, u64 count, u64 seed, u64 offset) {
    for (u64 i = first(); i < count; i += step()) {
        to[i] = element_of(static_cast<float>(integer_at(seed, offset + i)));
    }
}

// Compares with the sum of the integers of `members` seeds, the first being `seed`, and adds what
// differs to `found`, which the caller has set to no mismatches.
extern "C" __global__ void verify_exact(const Element* from, u64 count, u64 seed, u64 offset,
                                        u32 members, Mismatches* found) {
    for (u64 i = first(); i < count; i += step()) {
        int expected = 0;
        for (u32 member = 0; member < members; member++) {
            expected += integer_at(seed + member, offset + i);
        }
        // A NaN is unequal to everything.
        if (!(number_of(from[i]) == static_cast<float>(expected))) {
            atomicAdd(&found->count, 1ull);
            atomicMin(&found->first, i);
        }
    }
}
