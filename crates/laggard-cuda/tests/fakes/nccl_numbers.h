/* Elements as NCCL's data types hold them, as numbers. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static size_t size_of(int type) {
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return sizes[type];
}

static double half_to_double(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value = exponent == 31 ? (fraction ? NAN : INFINITY)
        : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits & 0x8000 ? -value : value;
}

static uint16_t half_of_double(double value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double size = fabs(value);
    int exponent;
    if (isnan(value)) return 0x7e00;
    if (size == 0) return sign;
    if (size >= 65520) return sign | 0x7c00;
    frexp(size, &exponent);
    exponent = exponent < -13 ? -13 : exponent;
    /* Carries go into the exponent by themselves. */
    uint16_t scaled = (uint16_t)nearbyint(ldexp(size, 11 - exponent));
    return sign | (uint16_t)(scaled + ((exponent + 13) << 10));
}

static double load(int type, const void *at, size_t i) {
    uint32_t bits;
    float f;
    switch (type) {
    case 2: return ((const int32_t *)at)[i];
    case 4: return (double)((const int64_t *)at)[i];
    case 6: return half_to_double(((const uint16_t *)at)[i]);
    case 7: return ((const float *)at)[i];
    case 8: return ((const double *)at)[i];
    case 9:
        bits = (uint32_t)((const uint16_t *)at)[i] << 16;
        memcpy(&f, &bits, 4);
        return f;
    }
    abort();
}

static void store(int type, void *at, size_t i, double value) {
    uint32_t bits;
    float f;
    switch (type) {
    case 2: ((int32_t *)at)[i] = (int32_t)value; return;
    case 4: ((int64_t *)at)[i] = (int64_t)value; return;
    case 6: ((uint16_t *)at)[i] = half_of_double(value); return;
    case 7: ((float *)at)[i] = (float)value; return;
    case 8: ((double *)at)[i] = value; return;
    case 9:
        f = (float)value;
        memcpy(&bits, &f, 4);
        ((uint16_t *)at)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        return;
    }
    abort();
}

/* A value as the type holds it. */
static double rounded(int type, double value) {
    char room[8];
    store(type, room, 0, value);
    return load(type, room, 0);
}
