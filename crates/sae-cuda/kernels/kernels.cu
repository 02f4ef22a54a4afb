// What a GPU does of a training step beside libtorch's products. Compiled to kernels.ptx by scripts/ptx.py.
//
// N tokens, V vocabulary, F dictionary elements (features), W width of a row (the SAE's input or output), M active features
// of all tokens together.
//
// Every sum has one order, whatever else runs: a kernel gives the same bits on the same card every time.

typedef long long i64;
typedef unsigned short bf16; // The upper half of an f32.

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(bf16 x) { return __uint_as_float((unsigned)x << 16); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
// To the nearest, ties to even; NaN stays NaN.
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bf16)((bits >> 16) | 0x40u);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// 16 bytes of a row.
template <typename T> struct Pack { static const int N = 16 / sizeof(T); };

__device__ __forceinline__ void load(const float* from, float (&to)[4]) {
    float4 all = *reinterpret_cast<const float4*>(from);
    to[0] = all.x; to[1] = all.y; to[2] = all.z; to[3] = all.w;
}
__device__ __forceinline__ void load(const bf16* from, float (&to)[8]) {
    uint4 all = *reinterpret_cast<const uint4*>(from);
    unsigned words[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = __uint_as_float(words[i] << 16);
        to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

struct Sum {
    template <typename A> static __device__ __forceinline__ A of(A a, A b) { return a + b; }
};
struct Max {
    static __device__ __forceinline__ float of(float a, float b) { return fmaxf(a, b); }
};

// Of all threads of a block, to all of them. `blockDim.x` is a multiple of 32.
template <typename Op, typename A> __device__ A reduce(A value) {
    __shared__ A parts[33];
    for (int offset = 16; offset > 0; offset /= 2) value = Op::of(value, __shfl_xor_sync(0xffffffffu, value, offset));
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    if (lane == 0) parts[warp] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
        A all = parts[0];
        for (int i = 1; i < warps; i++) all = Op::of(all, parts[i]);
        parts[32] = all;
    }
    __syncthreads();
    A all = parts[32];
    __syncthreads();
    return all;
}

// ---- KL divergence

// What a thread has seen of a row of both models' logits: the largest, the sum of exp(logit - largest), and the original's
// exponentials times p - q.
struct Seen {
    float max_p, max_q, sum_p, sum_q, weighted;

    __device__ __forceinline__ void add(float p, float q) {
        if (p > max_p) {
            float factor = expf(max_p - p);
            sum_p = sum_p * factor + 1.0f;
            weighted = weighted * factor + (p - q);
            max_p = p;
        } else {
            float factor = expf(p - max_p);
            sum_p += factor;
            weighted += factor * (p - q);
        }
        if (q > max_q) {
            sum_q = sum_q * expf(max_q - q) + 1.0f;
            max_q = q;
        } else {
            sum_q += expf(q - max_q);
        }
    }
};

__device__ __forceinline__ void store(float* to, const float (&from)[4]) {
    *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
}
__device__ __forceinline__ void store(bf16* to, const float (&from)[4]) {
    unsigned low = narrow<bf16>(from[0]) | (unsigned)narrow<bf16>(from[1]) << 16;
    unsigned high = narrow<bf16>(from[2]) | (unsigned)narrow<bf16>(from[3]) << 16;
    *reinterpret_cast<uint2*>(to) = make_uint2(low, high);
}

// KL(p || q) of every row of logits, in nats, and q - p (probabilities), which may take the place of the logits of q. A block
// a row. Rows begin every `stride` numbers, a multiple of 4; what is beyond the v words becomes 0 in the difference.
template <typename T>
__device__ void kl_rows(const float* p, const float* q, T* difference, double* value, i64 v, i64 stride) {
    const float* own_p = p + (i64)blockIdx.x * stride;
    const float* own_q = q + (i64)blockIdx.x * stride;
    T* to = difference + (i64)blockIdx.x * stride;
    const float nothing = __int_as_float(0xff800000); // Minus infinity.
    Seen seen = {nothing, nothing, 0, 0, 0};
    i64 packs = v / 4;
#pragma unroll 2
    for (i64 i = threadIdx.x; i < packs; i += blockDim.x) {
        float a[4], b[4];
        load(own_p + 4 * i, a);
        load(own_q + 4 * i, b);
#pragma unroll
        for (int k = 0; k < 4; k++) seen.add(a[k], b[k]);
    }
    i64 rest = 4 * packs + threadIdx.x;
    if (rest < v) seen.add(own_p[rest], own_q[rest]);
    float all_p = reduce<Max>(seen.max_p), all_q = reduce<Max>(seen.max_q);
    // A thread that has seen nothing adds nothing.
    float factor_p = seen.sum_p > 0 ? expf(seen.max_p - all_p) : 0, factor_q = seen.sum_q > 0 ? expf(seen.max_q - all_q) : 0;
    double total_p = reduce<Sum>((double)seen.sum_p * factor_p);
    double total_q = reduce<Sum>((double)seen.sum_q * factor_q);
    double total_w = reduce<Sum>(seen.sum_p > 0 ? (double)seen.weighted * factor_p : 0.0);
    float scale_p = (float)(1.0 / total_p), scale_q = (float)(1.0 / total_q);
#pragma unroll 2
    for (i64 i = threadIdx.x; i < packs; i += blockDim.x) {
        float a[4], b[4];
        load(own_p + 4 * i, a);
        load(own_q + 4 * i, b);
#pragma unroll
        for (int k = 0; k < 4; k++) b[k] = expf(b[k] - all_q) * scale_q - expf(a[k] - all_p) * scale_p;
        store(to + 4 * i, b);
    }
    if (rest < v) to[rest] = narrow<T>(expf(own_q[rest] - all_q) * scale_q - expf(own_p[rest] - all_p) * scale_p);
    for (i64 i = v + threadIdx.x; i < stride; i += blockDim.x) to[i] = narrow<T>(0.0f);
    if (threadIdx.x == 0) {
        value[blockIdx.x] = total_w / total_p - (all_p + log(total_p)) + (all_q + log(total_q));
    }
}
extern "C" __global__ void kl_rows_f32(const float* p, const float* q, float* to, double* value, i64 v, i64 stride) {
    kl_rows(p, q, to, value, v, stride);
}
extern "C" __global__ void kl_rows_bf16(const float* p, const float* q, bf16* to, double* value, i64 v, i64 stride) {
    kl_rows(p, q, to, value, v, stride);
}

// ---- A sparse code: of each token the active features, in order

// A NaN is active, so that it is not lost.
__device__ __forceinline__ bool is_active(float x) { return !(x <= 0); }

// How many features of a row of [N, F] are active, and their sum. A block a row.
template <typename T> __device__ void count_rows(const T* features, i64 f, int* counts, float* sums) {
    const T* own = features + (i64)blockIdx.x * f;
    int count = 0;
    float sum = 0;
    const int P = Pack<T>::N;
    i64 packs = f % P == 0 ? f / P : 0;
    for (i64 i = threadIdx.x; i < packs; i += blockDim.x) {
        float x[P];
        load(own + i * P, x);
#pragma unroll
        for (int k = 0; k < P; k++) {
            if (is_active(x[k])) { count++; sum += x[k]; }
        }
    }
    for (i64 i = packs * P + threadIdx.x; i < f; i += blockDim.x) {
        float x = wide(own[i]);
        if (is_active(x)) { count++; sum += x; }
    }
    count = reduce<Sum>(count);
    sum = reduce<Sum>(sum);
    if (threadIdx.x == 0) { counts[blockIdx.x] = count; sums[blockIdx.x] = sum; }
}
extern "C" __global__ void count_rows_f32(const float* x, i64 f, int* counts, float* sums) { count_rows(x, f, counts, sums); }
extern "C" __global__ void count_rows_bf16(const bf16* x, i64 f, int* counts, float* sums) { count_rows(x, f, counts, sums); }

// The active features of a row: their numbers, the row, their values, from `ends[row] - count` on. A block a row; a thread
// takes P features next to each other at a time.
template <typename T, int P>
__device__ void collect(const T* features, i64 f, const i64* ends, const int* counts, int* index, int* token, float* value) {
    __shared__ int warp_starts[33];
    i64 row = blockIdx.x;
    const T* own = features + row * f;
    i64 place = ends[row] - counts[row];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (i64 start = 0; start < f; start += (i64)blockDim.x * P) {
        i64 first = start + (i64)threadIdx.x * P;
        float x[P];
        int own_count = 0;
        if constexpr (P > 1) {
            if (first < f) {
                load(own + first, x);
            } else {
#pragma unroll
                for (int k = 0; k < P; k++) x[k] = 0;
            }
        } else {
            x[0] = first < f ? wide(own[first]) : 0;
        }
#pragma unroll
        for (int k = 0; k < P; k++) own_count += is_active(x[k]);
        // Most tiles have no active feature or few.
        int total = __syncthreads_count(own_count > 0);
        if (total == 0) continue;
        int before = own_count;
        for (int offset = 1; offset < 32; offset *= 2) {
            int other = __shfl_up_sync(0xffffffffu, before, offset);
            if (lane >= offset) before += other;
        }
        if (lane == 31) warp_starts[warp] = before;
        __syncthreads();
        if (threadIdx.x == 0) {
            int sum = 0;
            for (int i = 0; i < warps; i++) { int next = warp_starts[i]; warp_starts[i] = sum; sum += next; }
            warp_starts[32] = sum;
        }
        __syncthreads();
        i64 at = place + warp_starts[warp] + before - own_count;
#pragma unroll
        for (int k = 0; k < P; k++) {
            if (is_active(x[k])) {
                index[at] = (int)(first + k);
                token[at] = (int)row;
                value[at] = x[k];
                at++;
            }
        }
        place += warp_starts[32];
        __syncthreads();
    }
}
#define COLLECT(name, T, P)                                                                                              \
    extern "C" __global__ void name(                                                                                     \
        const T* x, i64 f, const i64* ends, const int* counts, int* index, int* token, float* value                      \
    ) { collect<T, P>(x, f, ends, counts, index, token, value); }
COLLECT(collect_f32, float, 1)
COLLECT(collect_bf16, bf16, 1)
COLLECT(collect_packs_f32, float, 4)
COLLECT(collect_packs_bf16, bf16, 8)

// ---- Sums of rows of a matrix

// out = base + sum of coefficient[j] * rows[index[j]] over a token's active features j; `base` may be missing. A block a
// token; a thread takes P columns next to each other.
template <typename T, int P>
__device__ void combine(
    const T* rows, const T* base, i64 width, const i64* ends, const int* counts, const int* index,
    const float* coefficient, T* out
) {
    i64 n = blockIdx.x, end = ends[n], begin = end - counts[n];
    for (i64 column = (i64)threadIdx.x * P; column < width; column += (i64)blockDim.x * P) {
        float sum[P];
#pragma unroll
        for (int k = 0; k < P; k++) sum[k] = base ? wide(base[column + k]) : 0;
#pragma unroll 4
        for (i64 j = begin; j < end; j++) {
            float x[P], c = coefficient[j];
            const T* row = rows + (i64)index[j] * width + column;
            if constexpr (P > 1) load(row, x); else x[0] = wide(row[0]);
#pragma unroll
            for (int k = 0; k < P; k++) sum[k] += c * x[k];
        }
        T* to = out + n * width + column;
#pragma unroll
        for (int k = 0; k < P; k++) to[k] = narrow<T>(sum[k]);
    }
}
#define COMBINE(name, T, P)                                                                                              \
    extern "C" __global__ void name(                                                                                     \
        const T* rows, const T* base, i64 width, const i64* ends, const int* counts, const int* index,                   \
        const float* coefficient, T* out                                                                                 \
    ) { combine<T, P>(rows, base, width, ends, counts, index, coefficient, out); }
COMBINE(combine_f32, float, 1)
COMBINE(combine_bf16, bf16, 1)
COMBINE(combine_packs_f32, float, 4)
COMBINE(combine_packs_bf16, bf16, 8)

// (sum of value^p over a token's active features)^(1/p). A warp a token.
extern "C" __global__ void row_norms(const float* value, const i64* ends, const int* counts, i64 n, float p, float* out) {
    i64 row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (row >= n) return;
    float sum = 0;
    for (i64 j = ends[row] - counts[row] + lane; j < ends[row]; j += 32) sum += powf(value[j], p);
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0) out[row] = powf(sum, 1.0f / p);
}

// ---- Gradients

// The gradient with respect to every active feature: gradient[token] . rows[feature] + the sparsity term's,
// weight * factor[token] * value^(p - 1) (no factors: 1). A block a token, a warp a feature; the token's gradient stands in
// shared memory.
template <typename T>
__device__ void feature_gradients(
    const T* gradient, const T* rows, i64 width, const i64* ends, const int* counts, const int* index, const float* value,
    const float* factor, float weight, float p, float* out
) {
    extern __shared__ float own[];
    i64 n = blockIdx.x, end = ends[n], begin = end - counts[n];
    if (begin == end) return;
    for (i64 i = threadIdx.x; i < width; i += blockDim.x) own[i] = wide(gradient[n * width + i]);
    __syncthreads();
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int P = Pack<T>::N;
    for (i64 j = begin + warp; j < end; j += warps) {
        const T* row = rows + (i64)index[j] * width;
        float sum = 0;
        if (width % P == 0) {
            for (i64 i = (i64)lane * P; i < width; i += 32 * P) {
                float x[P];
                load(row + i, x);
#pragma unroll
                for (int k = 0; k < P; k++) sum += x[k] * own[i + k];
            }
        } else {
            for (i64 i = lane; i < width; i += 32) sum += wide(row[i]) * own[i];
        }
        for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (lane == 0) {
            float penalty = factor ? weight * factor[n] * powf(value[j], p - 1.0f) : weight;
            out[j] = sum + penalty;
        }
    }
}
#define FEATURE_GRADIENTS(name, T)                                                                                       \
    extern "C" __global__ void name(                                                                                     \
        const T* gradient, const T* rows, i64 width, const i64* ends, const int* counts, const int* index,               \
        const float* value, const float* factor, float weight, float p, float* out                                       \
    ) { feature_gradients<T>(gradient, rows, width, ends, counts, index, value, factor, weight, p, out); }
FEATURE_GRADIENTS(feature_gradients_f32, float)
FEATURE_GRADIENTS(feature_gradients_bf16, bf16)

// out[feature] = sum of coefficient[j] * rows[token[j]] over the tokens on which the feature is active, in the order of the
// tokens within each of the block's groups. A block a feature; a group of threads of it takes every `groups`-th token, P
// columns a thread. `partial` is room for groups * width numbers. All threads have the sum of `dot` = out . along.
template <typename T, int P>
__device__ float gather(
    const T* rows, i64 width, const i64* order, i64 begin, i64 end, const int* token, const float* coefficient,
    const float* along, float* partial, int groups
) {
    int lanes = blockDim.x / groups, group = threadIdx.x / lanes, lane = threadIdx.x % lanes;
    for (i64 column = (i64)lane * P; column < width; column += (i64)lanes * P) {
        float sum[P];
#pragma unroll
        for (int k = 0; k < P; k++) sum[k] = 0;
#pragma unroll 2
        for (i64 j = begin + group; j < end; j += groups) {
            i64 entry = order[j];
            float x[P], c = coefficient[entry];
            const T* row = rows + (i64)token[entry] * width + column;
            if constexpr (P > 1) load(row, x); else x[0] = wide(row[0]);
#pragma unroll
            for (int k = 0; k < P; k++) sum[k] += c * x[k];
        }
#pragma unroll
        for (int k = 0; k < P; k++) partial[(i64)group * width + column + k] = sum[k];
    }
    __syncthreads();
    float dot = 0;
    for (i64 i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = partial[i];
        for (int own = 1; own < groups; own++) sum += partial[(i64)own * width + i];
        partial[i] = sum;
        if (along) dot += sum * along[i];
    }
    return along ? reduce<Sum>(dot) : (__syncthreads(), 0.0f);
}

// The gradients of w_enc [F, D], b_enc [F] and w_dec [F, E]: the last from that of the rows at unit length, of which what
// lies along the row is taken out: (d - u (u . d)) / norm, u = row / norm; a row that is divided by a constant keeps it.
template <typename T, int PD, int PE>
__device__ void parameter_gradients(
    const T* input, i64 d, const T* gradient, i64 e, const i64* order, const i64* starts, const int* token,
    const float* value, const float* pre, const float* w_dec, const float* norms, float min_norm, float* w_enc_out,
    float* b_enc_out, float* w_dec_out, int groups
) {
    extern __shared__ float partial[];
    i64 f = blockIdx.x, begin = starts[f], end = starts[f + 1];
    if (begin == end) {
        for (i64 i = threadIdx.x; i < d; i += blockDim.x) w_enc_out[f * d + i] = 0;
        for (i64 i = threadIdx.x; i < e; i += blockDim.x) w_dec_out[f * e + i] = 0;
        if (threadIdx.x == 0) b_enc_out[f] = 0;
        return;
    }
    float bias = 0;
    for (i64 j = begin + threadIdx.x; j < end; j += blockDim.x) bias += pre[order[j]];
    bias = reduce<Sum>(bias);
    if (threadIdx.x == 0) b_enc_out[f] = bias;
    gather<T, PD>(input, d, order, begin, end, token, pre, nullptr, partial, groups);
    for (i64 i = threadIdx.x; i < d; i += blockDim.x) w_enc_out[f * d + i] = partial[i];
    __syncthreads();
    const float* row = w_dec + f * e;
    float norm = norms[f];
    float dot = gather<T, PE>(gradient, e, order, begin, end, token, value, row, partial, groups);
    float along = norm > min_norm ? dot / norm : 0.0f;
    for (i64 i = threadIdx.x; i < e; i += blockDim.x) {
        w_dec_out[f * e + i] = (partial[i] - row[i] / norm * along) / norm;
    }
}
#define PARAMETER_GRADIENTS(name, T, PD, PE)                                                                             \
    extern "C" __global__ void __launch_bounds__(1024) name(                                                                                     \
        const T* input, i64 d, const T* gradient, i64 e, const i64* order, const i64* starts, const int* token,          \
        const float* value, const float* pre, const float* w_dec, const float* norms, float min_norm, float* w_enc_out,  \
        float* b_enc_out, float* w_dec_out, int groups                                                                   \
    ) {                                                                                                                  \
        parameter_gradients<T, PD, PE>(                                                                                  \
            input, d, gradient, e, order, starts, token, value, pre, w_dec, norms, min_norm, w_enc_out, b_enc_out,       \
            w_dec_out, groups                                                                                            \
        );                                                                                                               \
    }
PARAMETER_GRADIENTS(parameter_gradients_f32, float, 1, 1)
PARAMETER_GRADIENTS(parameter_gradients_bf16, bf16, 1, 1)
PARAMETER_GRADIENTS(parameter_gradients_packs_f32, float, 4, 4)
PARAMETER_GRADIENTS(parameter_gradients_packs_bf16, bf16, 8, 8)

// ---- Adam

// One step on a parameter and its moments, as sae-kernels has it.
extern "C" __global__ void adam(
    float* __restrict__ parameter, const float* __restrict__ gradient, float* __restrict__ mean, float* __restrict__ square,
    i64 n, float mean_weight, float square_weight, float square_decay, float eps, float rate, float root_scale,
    float gradient_scale, float decay
) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x) {
        float g = gradient[i] * gradient_scale;
        float m = mean[i] + mean_weight * (g - mean[i]);
        float s = square[i] * square_decay + square_weight * g * g;
        mean[i] = m;
        square[i] = s;
        parameter[i] = parameter[i] * decay - rate * (m / (sqrtf(s) * root_scale + eps));
    }
}
