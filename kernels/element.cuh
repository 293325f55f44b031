// The type of a buffer's elements, chosen by one of -DELEMENT_F32, -DELEMENT_F16, -DELEMENT_BF16.
#pragma once
#include "ptx.cuh"

#if defined(ELEMENT_F32)
typedef float Element;
DEVICE float number_of(Element element) { return element; }
DEVICE Element element_of(float number) { return number; }
#elif defined(ELEMENT_F16)
typedef u16 Element;
DEVICE float number_of(Element element) { return f16_value(element); }
DEVICE Element element_of(float number) { return f16_bits(number); }
DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_add_f16(c, a, b0, b1);
}
#elif defined(ELEMENT_BF16)
typedef u16 Element;
DEVICE float number_of(Element element) { return bf16_value(element); }
DEVICE Element element_of(float number) { return bf16_bits(number); }
DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#ifdef OPERANDS_E4M3
    multiply_add_e4m3(c, a, b0, b1);
#else
    multiply_add_bf16(c, a, b0, b1);
#endif
}
#else
#error "no element type: define ELEMENT_F32, ELEMENT_F16 or ELEMENT_BF16"
#endif
