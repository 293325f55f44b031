// What the fast kernels do not take: elements at any address, copies between a type and f32, and
// products of any shape, stride and type. One element at a time, neighbours by neighbouring
// threads.
#include "element.cuh"

DEVICE u64 first() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE u64 step() { return static_cast<u64>(gridDim.x) * blockDim.x; }

// to = from
extern "C" __global__ void copy_plain(Element* to, const Element* from, u64 count) {
    for (u64 i = first(); i < count; i += step()) {
        to[i] = from[i];
    }
}

// to = from, exactly
extern "C" __global__ void widen(float* to, const Element* from, u64 count) {
    for (u64 i = first(); i < count; i += step()) {
        to[i] = number_of(from[i]);
    }
}

// to = from, rounded to the nearest
extern "C" __global__ void narrow(Element* to, const float* from, u64 count) {
    for (u64 i = first(); i < count; i += step()) {
        to[i] = element_of(from[i]);
    }
}

// to += from
extern "C" __global__ void add_plain(Element* to, const Element* from, u64 count) {
    for (u64 i = first(); i < count; i += step()) {
        to[i] = element_of(number_of(to[i]) + number_of(from[i]));
    }
}

// Every element becomes `value`.
extern "C" __global__ void fill_plain(Element* to, float value, u64 count) {
    for (u64 i = first(); i < count; i += step()) {
        to[i] = element_of(value);
    }
}

// As in adam.cu, with gradients of the element type.
extern "C" __global__ void adam_plain(float* parameters, const Element* gradients,
                                      float* first_moments, float* second_moments,
                                      float learning_rate, u64 count) {
    for (u64 i = first(); i < count; i += step()) {
        const float gradient = number_of(gradients[i]);
        const float m = 0.9f * first_moments[i] + 0.1f * gradient;
        const float v = 0.999f * second_moments[i] + 0.001f * gradient * gradient;
        first_moments[i] = m;
        second_moments[i] = v;
        parameters[i] -= learning_rate * m / (sqrtf(v) + 1e-8f);
    }
}

// As in gemm.cuh, but for operands of any type and address, and with more flags.
struct GemmArguments {
    const void* a;
    const void* b;
    void* c;
    u32 rows;
    u32 columns;
    u32 depth;
    u32 stride_a;
    u32 stride_b;
    u32 stride_c;
    float scale;
    u32 flags; // 1: adds to c; 2: c is of f32; 4: a is transposed; 8: b is transposed
};

const u32 kTile = 16;

// An element of an operand as it is used; zero outside of it.
DEVICE float operand(const void* matrix, u32 stride, bool is_transposed, u32 row, u32 column,
                     bool is_inside) {
    const u64 at = is_transposed ? static_cast<u64>(column) * stride + row
                                 : static_cast<u64>(row) * stride + column;
    return is_inside ? number_of(static_cast<const Element*>(matrix)[at]) : 0.0f;
}

// c = scale * op(a) * op(b), or c += ...; sums are made in f32, one after the other. Each block of
// 16 x 16 threads computes a tile of as many elements.
extern "C" __global__ void __launch_bounds__(kTile * kTile) gemm_plain(GemmArguments p) {
    __shared__ float left[kTile][kTile + 1];
    __shared__ float right[kTile][kTile + 1];
    const u32 across = (p.columns + kTile - 1) / kTile;
    const u32 tile = blockIdx.x;
    const u32 x = threadIdx.x % kTile;
    const u32 y = threadIdx.x / kTile;
    const u32 row = tile / across * kTile + y;
    const u32 column = tile % across * kTile + x;
    const u32 slices = p.depth / kTile + (p.depth % kTile != 0);
    const bool a_transposed = p.flags & 4;
    const bool b_transposed = p.flags & 8;

    float sum = 0;
    for (u32 slice = 0; slice < slices; slice++) {
        const u32 k = slice * kTile;
        left[y][x] = operand(p.a, p.stride_a, a_transposed, row, k + x,
                             row < p.rows && k + x < p.depth);
        right[y][x] = operand(p.b, p.stride_b, b_transposed, k + y, column,
                              k + y < p.depth && column < p.columns);
        __syncthreads();
        for (u32 i = 0; i < kTile; i++) {
            sum += left[y][i] * right[i][x];
        }
        __syncthreads();
    }
    if (row >= p.rows || column >= p.columns) {
        return;
    }
    const float product = p.scale * sum;
    const u64 at = static_cast<u64>(row) * p.stride_c + column;
    if (p.flags & 2) {
        float* c = static_cast<float*>(p.c) + at;
        *c = p.flags & 1 ? *c + product : product;
    } else {
        Element* c = static_cast<Element*>(p.c) + at;
        *c = element_of(p.flags & 1 ? number_of(*c) + product : product);
    }
}
