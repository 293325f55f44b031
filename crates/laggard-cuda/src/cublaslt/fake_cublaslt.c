/* A stand-in for libcublasLt: it takes the descriptions that the real one takes, and multiplies
 * column by column on the host, whose memory takes the place of the device's. Written after the
 * documentation of cublasLtMatmul: D = alpha * op(A) * op(B) + beta * C. Built with REFUSE for one
 * that has no algorithm, and with FAIL for one whose products fail. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15, EXECUTION_FAILED = 13 };
enum { F32 = 0, F16 = 2, BF16 = 14 };

typedef struct { int transposes[2]; } Operation;
typedef struct { int type; uint64_t rows, columns; int64_t stride; } Layout;
typedef struct { uint64_t workspace; uint32_t alignments[4]; } Preference;
typedef struct { uint64_t data[8]; } Algorithm;
typedef struct { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; }
    Result;

size_t cublasLtGetVersion(void) { return 130100; }
const char *cublasLtGetStatusName(int code) {
    return code == EXECUTION_FAILED ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS_OTHER";
}
int cublasLtCreate(void **handle) {
    static int here;
    *handle = &here;
    return SUCCESS;
}
int cublasLtMatmulDescCreate(void **to, int compute, int scale) {
    if (compute != 68 || scale != F32) return INVALID_VALUE;
    *to = calloc(1, sizeof(Operation));
    return SUCCESS;
}
int cublasLtMatmulDescSetAttribute(Operation *of, int name, const void *value, size_t bytes) {
    if ((name != 3 && name != 4) || bytes != 4) return INVALID_VALUE;
    memcpy(&of->transposes[name - 3], value, 4);
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(void *of) { free(of); return SUCCESS; }
int cublasLtMatrixLayoutCreate(void **to, int type, uint64_t rows, uint64_t columns,
                               int64_t stride) {
    Layout *layout = malloc(sizeof(Layout));
    if ((uint64_t)stride < rows) return INVALID_VALUE;
    *layout = (Layout){type, rows, columns, stride};
    *to = layout;
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(void *of) { free(of); return SUCCESS; }
int cublasLtMatmulPreferenceCreate(void **to) {
    *to = calloc(1, sizeof(Preference));
    return SUCCESS;
}
int cublasLtMatmulPreferenceSetAttribute(Preference *of, int name, const void *value,
                                         size_t bytes) {
    if (name == 1 && bytes == 8) {
        memcpy(&of->workspace, value, 8);
    } else if (name >= 5 && name <= 8 && bytes == 4) {
        memcpy(&of->alignments[name - 5], value, 4);
    } else {
        return INVALID_VALUE;
    }
    return SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(void *of) { free(of); return SUCCESS; }

/* The algorithm says what it was chosen for. */
int cublasLtMatmulAlgoGetHeuristic(void *handle, Operation *operation, Layout *a, Layout *b,
                                   Layout *c, Layout *d, Preference *preference, int wanted,
                                   Result *result, int *count) {
    static int times;
    times++;
    *count = 0;
#ifdef REFUSE
    return NOT_SUPPORTED;
#endif
    if (!handle || wanted < 1) return INVALID_VALUE;
    memset(result, 0, sizeof(*result));
    result->algorithm.data[0] = preference->workspace;
    for (int i = 0; i < 4; i++) {
        if (preference->alignments[i] < 16) return INVALID_VALUE;
        result->algorithm.data[1 + i] = preference->alignments[i];
    }
    result->algorithm.data[5] = times;
    *count = 1;
    return SUCCESS;
}

static float widened(const void *at, int64_t index, int type) {
    float value;
    if (type == F32) return ((const float *)at)[index];
    if (type == F16) return (float)((const _Float16 *)at)[index];
    uint32_t bits = (uint32_t)((const uint16_t *)at)[index] << 16;
    memcpy(&value, &bits, 4);
    return value;
}
static void store(void *at, int64_t index, int type, float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (type == F32) ((float *)at)[index] = value;
    else if (type == F16) ((_Float16 *)at)[index] = (_Float16)value;
    else ((uint16_t *)at)[index] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static float used(const void *at, const Layout *layout, int transposed, uint64_t row,
                  uint64_t column) {
    if (transposed) { uint64_t swap = row; row = column; column = swap; }
    return widened(at, row + column * layout->stride, layout->type);
}

int cublasLtMatmul(void *handle, const Operation *operation, const float *alpha, const void *a,
                   const Layout *a_layout, const void *b, const Layout *b_layout, const float *beta,
                   const void *c, const Layout *c_layout, void *d, const Layout *d_layout,
                   const Algorithm *algorithm, void *workspace, size_t workspace_bytes,
                   void *stream) {
#ifdef FAIL
    return EXECUTION_FAILED;
#endif
    const int *t = operation->transposes;
    uint64_t rows = t[0] ? a_layout->columns : a_layout->rows;
    uint64_t depth = t[0] ? a_layout->rows : a_layout->columns;
    uint64_t depth_of_b = t[1] ? b_layout->columns : b_layout->rows;
    uint64_t columns = t[1] ? b_layout->rows : b_layout->columns;
    const void *addresses[4] = {a, b, c, d};
    if (!handle || !stream || workspace_bytes < algorithm->data[0]) return INVALID_VALUE;
    for (int i = 0; i < 4; i++) {
        if ((uintptr_t)addresses[i] % algorithm->data[1 + i]) return INVALID_VALUE;
    }
    if (depth != depth_of_b || rows != d_layout->rows || columns != d_layout->columns ||
        c_layout->rows != rows || c_layout->columns != columns)
        return INVALID_VALUE;
#ifdef BLIND
    return SUCCESS;
#endif
    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t j = 0; j < columns; j++) {
            float sum = 0;
            for (uint64_t k = 0; k < depth; k++)
                sum += used(a, a_layout, t[0], i, k) * used(b, b_layout, t[1], k, j);
            sum *= *alpha;
            /* As in BLAS, what is multiplied by zero is not read: it may be anything. */
            if (*beta != 0) sum += *beta * used(c, c_layout, 0, i, j);
            store(d, i + j * d_layout->stride, d_layout->type, sum);
        }
    }
    if (workspace) ((uint64_t *)workspace)[0] = algorithm->data[5];
    return SUCCESS;
}
