// F(2 x 2, 3 x 3) Winograd convolution of low-bit codes, exact in integers (Lavin and Gray, arXiv 1509.09308).
//
// Codes of inputs are 0 .. most, of weights small and signed. A transformed input is a sum of four codes with signs; rows
// 1 and 2 of the weights' transform are taken twice, which makes them whole. At four bits these lie within -30 .. 60
// and -72 .. 72, so both fit 8 bits, and 4 products of 8 bits take the place of 9. The output's transform divides by 4
// without a rest. Tensors are channels last. Weights that are all odd, twice a code and one, are stored as their codes:
// twice the code's convolution and the sum of the inputs under the window.
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int kTiles = 64;    // of 2 x 2 outputs, transformed together: 16 x 64 x in bytes
constexpr int kOutputs = 64;  // channels, multiplied together: 16 x 64 x 64 sums

template <typename T>
struct Aligned {  // a vector whose first element lies on a cache line
  std::vector<T> kept;
  explicit Aligned(size_t size) : kept(size + 64 / sizeof(T)) {}
  T* data() { return (T*)((uintptr_t(kept.data()) + 63) & ~uintptr_t(63)); }
  const T* data() const { return const_cast<Aligned*>(this)->data(); }
};

struct Layer {
  int in, out;                 // in a multiple of 32, out of 16
  int shift;                   // added to transformed inputs that can be negative
  int group;                   // products of pairs that 16 bits can add up
  bool odd;                    // weights are twice what is stored, and one
  Aligned<int8_t> weights;     // [blocks of 64 outputs][16][their sixteens][in / 4][2][8][4]
  std::vector<int32_t> start;  // [16][out]: minus shift times the sum over a channel's transformed weights
};

struct Call {
  const Layer& layer;
  int height, width;
  const uint8_t *x, *pad;  // [height][width][in]; [in], what lies outside
  const float* scale;
  const int32_t* base;
  float* y;  // [height][width][out]
  int across() const { return (width + 1) / 2; }
  int tiles() const { return (height + 1) / 2 * across(); }
  const uint8_t* at(int i, int j) const {
    return i < 0 || j < 0 || i >= height || j >= width ? pad : x + (size_t(i) * width + j) * layer.in;
  }
};

inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi8(a, b); }  // modulo 256; what is kept fits
inline __m256i sub(__m256i a, __m256i b) { return _mm256_sub_epi8(a, b); }

inline int total(__m256i bytes) {
  const __m256i four = _mm256_sad_epu8(bytes, _mm256_setzero_si256());
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
  return int(_mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1));
}

// The sums of the codes under the windows of a tile's four outputs.
void sum_windows(const uint8_t* const from[4][4], int in, int32_t* window) {
  int each[4][4];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      each[i][j] = 0;
      for (int k = 0; k < in; k += 32) each[i][j] += total(_mm256_loadu_si256((const __m256i*)(from[i][j] + k)));
    }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      window[i * 2 + j] = 0;
      for (int n = 0; n < 9; ++n) window[i * 2 + j] += each[i + n / 3][j + n % 3];
    }
}

// v[16][kTiles][in] of `count` tiles, and where weights are odd windows[kTiles][4].
void transform_inputs(const Call& call, int first, int count, uint8_t* v, int32_t* windows) {
  const int c = call.layer.in;
  const __m256i shift = _mm256_set1_epi8(char(call.layer.shift));
  for (int t = 0; t < count; ++t) {
    const int top = (first + t) / call.across() * 2 - 1, left = (first + t) % call.across() * 2 - 1;
    const uint8_t* from[4][4];
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) from[i][j] = call.at(top + i, left + j);
    if (call.layer.odd) sum_windows(from, c, windows + t * 4);
    for (int k = 0; k < c; k += 32) {
      __m256i d[4][4], e[4][4];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) d[i][j] = _mm256_loadu_si256((const __m256i*)(from[i][j] + k));
      for (int j = 0; j < 4; ++j) {
        e[0][j] = sub(d[0][j], d[2][j]);
        e[1][j] = add(d[1][j], d[2][j]);
        e[2][j] = sub(d[2][j], d[1][j]);
        e[3][j] = sub(d[1][j], d[3][j]);
      }
      for (int i = 0; i < 4; ++i) {
        const __m256i f[4] = {sub(e[i][0], e[i][2]), add(e[i][1], e[i][2]), sub(e[i][2], e[i][1]), sub(e[i][1], e[i][3])};
        for (int j = 0; j < 4; ++j)
          _mm256_store_si256((__m256i*)(v + (size_t(i * 4 + j) * kTiles + t) * c + k), i == 1 && j == 1 ? f[j] : add(f[j], shift));
      }
    }
  }
}

// Adds to each of eight sums the products of four inputs, the same for all, with four weights; kGroup times.
template <int kGroup>
inline void add_products(__m256i& sum, const __m256i* v, const int8_t* u) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  for (int g = 0; g < kGroup; ++g) sum = _mm256_dpbusd_epi32(sum, v[g], _mm256_load_si256((const __m256i*)(u + g * 64)));
#else
  __m256i pairs = _mm256_maddubs_epi16(v[0], _mm256_load_si256((const __m256i*)u));
  for (int g = 1; g < kGroup; ++g)
    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(v[g], _mm256_load_si256((const __m256i*)(u + g * 64))));
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

// m[kTiles][kOutputs] = v[kTiles][in] u for `outputs` channels, four tiles by 16 channels at a time.
template <int kGroup>
void multiply(int in, const uint8_t* v, const int8_t* u, const int32_t* start, int count, int outputs, int32_t* m) {
  for (int o = 0; o < outputs; o += 16, u += size_t(in) * 16) {
    for (int t = 0; t < count; t += 4) {
      __m256i sums[4][2];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 2; ++j) sums[i][j] = _mm256_loadu_si256((const __m256i*)(start + o + 8 * j));
      for (int k = 0; k < in; k += 4 * kGroup) {
        for (int i = 0; i < 4; ++i) {
          __m256i four[kGroup];
          for (int g = 0; g < kGroup; ++g) {
            int32_t bytes;
            std::memcpy(&bytes, v + size_t(t + i) * in + k + 4 * g, 4);
            four[g] = _mm256_set1_epi32(bytes);
          }
          for (int j = 0; j < 2; ++j) add_products<kGroup>(sums[i][j], four, u + size_t(k) * 16 + 32 * j);
        }
      }
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 2; ++j) _mm256_store_si256((__m256i*)(m + size_t(t + i) * kOutputs + o + 8 * j), sums[i][j]);
    }
  }
}

// The four outputs of every tile.
void transform_outputs(const Call& call, const int32_t* m, const int32_t* windows, int first, int count, int o, int outputs) {
  const int quarter = call.layer.odd ? 1 : 2;  // of four times the sum; odd weights want twice of it
  for (int t = 0; t < count; ++t) {
    const int top = (first + t) / call.across() * 2, left = (first + t) % call.across() * 2;
    for (int k = 0; k < outputs; k += 8) {
      __m256i s[2][4];
      for (int j = 0; j < 4; ++j) {
        __m256i a[4];
        for (int i = 0; i < 4; ++i)
          a[i] = _mm256_load_si256((const __m256i*)(m + (size_t(i * 4 + j) * kTiles + t) * kOutputs + k));
        s[0][j] = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(a[0], a[0]), a[1]), a[2]);
        s[1][j] = _mm256_sub_epi32(_mm256_sub_epi32(a[1], a[2]), _mm256_add_epi32(a[3], a[3]));
      }
      const __m256 scale = _mm256_loadu_ps(call.scale + o + k);
      const __m256i base = _mm256_loadu_si256((const __m256i*)(call.base + o + k));
      for (int i = 0; i < 2 && top + i < call.height; ++i) {
        const __m256i r[2] = {_mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(s[i][0], s[i][0]), s[i][1]), s[i][2]),
                              _mm256_sub_epi32(_mm256_sub_epi32(s[i][1], s[i][2]), _mm256_add_epi32(s[i][3], s[i][3]))};
        for (int j = 0; j < 2 && left + j < call.width; ++j) {
          __m256i sum = _mm256_add_epi32(_mm256_srai_epi32(r[j], quarter), base);
          if (call.layer.odd) sum = _mm256_add_epi32(sum, _mm256_set1_epi32(windows[t * 4 + i * 2 + j]));
          _mm256_storeu_ps(call.y + (size_t(top + i) * call.width + left + j) * call.layer.out + o + k,
                           _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale));
        }
      }
    }
  }
}

void convolve(const Call& call, int begin, int end) {
  const Layer& layer = call.layer;
  Aligned<uint8_t> kept(size_t(16) * kTiles * layer.in);
  Aligned<int32_t> sums(size_t(16) * kTiles * kOutputs), windows(size_t(4) * kTiles);
  for (int first = begin; first < end; first += kTiles) {
    const int count = end - first < kTiles ? end - first : kTiles, fours = (count + 3) / 4 * 4;
    transform_inputs(call, first, count, kept.data(), windows.data());
    for (int o = 0; o < layer.out; o += kOutputs) {
      const int outputs = layer.out - o < kOutputs ? layer.out - o : kOutputs;
      for (int p = 0; p < 16; ++p) {
        const uint8_t* v = kept.data() + size_t(p) * kTiles * layer.in;
        const int8_t* u = layer.weights.data() + (size_t(o) * 16 + size_t(p) * outputs) * layer.in;
        const int32_t* start = layer.start.data() + size_t(p) * layer.out + o;
        int32_t* m = sums.data() + size_t(p) * kTiles * kOutputs;
        if (layer.group >= 4) multiply<4>(layer.in, v, u, start, fours, outputs, m);
        else if (layer.group >= 2) multiply<2>(layer.in, v, u, start, fours, outputs, m);
        else multiply<1>(layer.in, v, u, start, fours, outputs, m);
      }
      transform_outputs(call, sums.data(), windows.data(), first, count, o, outputs);
    }
  }
}

}  // namespace

extern "C" {

// Weights w[out][in][3][3]; inputs' codes are 0 .. most. The caller knows that all fits: winograd.py, suits().
void* winograd_new(int in, int out, const int8_t* w, int most, int odd) {
  Layer* layer = new Layer{in, out, 2 * most, 0, odd != 0, Aligned<int8_t>(size_t(16) * in * out), std::vector<int32_t>(size_t(16) * out)};
  int largest = 1;
  for (int o = 0; o < out; ++o) {
    const int block = o / kOutputs * kOutputs, outputs = out - block < kOutputs ? out - block : kOutputs;
    for (int c = 0; c < in; ++c) {
      int g[9], h[4][3], u[16];
      for (int n = 0; n < 9; ++n) {
        const int value = w[(size_t(o) * in + c) * 9 + n];
        g[n] = odd ? (value - 1) / 2 : value;
      }
      for (int j = 0; j < 3; ++j)
        h[0][j] = g[j], h[1][j] = g[j] + g[3 + j] + g[6 + j], h[2][j] = g[j] - g[3 + j] + g[6 + j], h[3][j] = g[6 + j];
      for (int i = 0; i < 4; ++i) {
        u[i * 4] = h[i][0], u[i * 4 + 3] = h[i][2];
        u[i * 4 + 1] = h[i][0] + h[i][1] + h[i][2], u[i * 4 + 2] = h[i][0] - h[i][1] + h[i][2];
      }
      for (int p = 0; p < 16; ++p) {
        const int size = u[p] < 0 ? -u[p] : u[p];
        const size_t sixteen = (size_t(block) * 16 + size_t(p) * outputs + (o - block) / 16 * 16) * in;
        layer->weights.data()[sixteen + c / 4 * 64 + o % 16 / 8 * 32 + o % 8 * 4 + c % 4] = int8_t(u[p]);
        if (p != 5) layer->start[size_t(p) * out + o] -= layer->shift * u[p];
        if (size > largest) largest = size;
      }
    }
  }
  layer->group = 32767 / (2 * 4 * most * largest);
  return layer;
}

void winograd_delete(void* layer) { delete static_cast<Layer*>(layer); }

// y = scale * (the convolution of x, which `pad` surrounds, + base), by channel.
void winograd_run(const void* layer, int height, int width, const uint8_t* x, const uint8_t* pad, const float* scale,
                  const int32_t* base, float* y, int threads) {
  const Call call{*static_cast<const Layer*>(layer), height, width, x, pad, scale, base, y};
  const int blocks = (call.tiles() + kTiles - 1) / kTiles;
  std::vector<std::thread> others;
  for (int n = 0; n < threads; ++n) {
    const int begin = blocks * n / threads * kTiles, last = blocks * (n + 1) / threads * kTiles;
    const int end = last < call.tiles() ? last : call.tiles();
    if (n + 1 == threads) convolve(call, begin, end);
    else if (begin < end) others.emplace_back(convolve, std::cref(call), begin, end);
  }
  for (auto& each : others) each.join();
}
}
