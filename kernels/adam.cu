// One fused Adam update (Kingma and Ba 2015, section 2, with that paper's decay rates). The bias
// correction is in `learning_rate`. Operations are rounded one by one in the order of the CPU's.
#include "ptx.cuh"

const float kBeta1 = 0.9f;
const float kRest1 = 0.1f;
const float kBeta2 = 0.999f;
const float kRest2 = 0.001f;
const float kEpsilon = 1e-8f;

union Lot {
    Chunk chunk;
    float element[4];
};

DEVICE void update(float& parameter, float gradient, float& first_moment, float& second_moment,
                   float learning_rate) {
    first_moment = kBeta1 * first_moment + kRest1 * gradient;
    second_moment = kBeta2 * second_moment + kRest2 * gradient * gradient;
    parameter -= learning_rate * first_moment / (sqrtf(second_moment) + kEpsilon);
}

// All addresses are multiples of 16.
extern "C" __global__ void adam(float* parameters, const float* gradients, float* first_moments,
                                float* second_moments, float learning_rate, u64 count) {
    const u64 first = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    const u64 step = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = first; i < count / 4; i += step) {
        Lot p, g, m, v;
        p.chunk = reinterpret_cast<Chunk*>(parameters)[i];
        g.chunk = reinterpret_cast<const Chunk*>(gradients)[i];
        m.chunk = reinterpret_cast<Chunk*>(first_moments)[i];
        v.chunk = reinterpret_cast<Chunk*>(second_moments)[i];
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            update(p.element[j], g.element[j], m.element[j], v.element[j], learning_rate);
        }
        reinterpret_cast<Chunk*>(parameters)[i] = p.chunk;
        reinterpret_cast<Chunk*>(first_moments)[i] = m.chunk;
        reinterpret_cast<Chunk*>(second_moments)[i] = v.chunk;
    }
    if (const u64 i = count / 4 * 4 + first; i < count) {
        update(parameters[i], gradients[i], first_moments[i], second_moments[i], learning_rate);
    }
}
