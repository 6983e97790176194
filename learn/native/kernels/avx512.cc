// Compiled for AVX-512 (F, BW, DQ, VL): products at twice the rate of MKL's where that takes AVX2 (AMD's Zen 4 and 5).
//
// A product is made in tiles of c of up to 12 rows and two registers of columns, which stay in registers over a block of terms (Goto and
// van de Geijn 2008, "Anatomy of high-performance matrix multiplication"): b is packed into panels of two registers' width, a where its
// rows do not lie one after the other. Of sizes up to 256 both stay in the second-level cache. An element's terms are summed in their order, wherever
// in c it lies and however many rows c has, down to FEW.
#include <immintrin.h>

#include "elementwise.inl"

namespace {

using rl::Product;

constexpr int64_t WIDTH = 16;      // floats a register
constexpr int64_t NR = 2 * WIDTH;  // columns of a panel
constexpr int64_t MR = 12;         // rows of a tile, at most: 24 registers of sums
constexpr int64_t KC = 256;        // terms of a block: a panel has 32 KB
constexpr int64_t MC = 240;        // rows of a block of a
constexpr int64_t FEW = 4;        // up to so many rows, packing b costs more than it gains

inline __mmask16 mask_of(int64_t n) {
  return n >= WIDTH ? __mmask16(0xffff) : n <= 0 ? __mmask16(0) : __mmask16((1u << n) - 1);
}

struct Tile {
  const float* a;
  int64_t a_row;  // of an unpacked a, whose terms lie one after the other
  const float* panel;
  int64_t k;
  float* c;
  int64_t c_row;
  int64_t columns;
  bool first, last;  // of the blocks of terms
  const float* bias;
  bool relu;
  const float* where;
  int64_t where_row;
};

template <int ROWS, int NV, bool PACKED>
void tile(const Tile& t) {
  __m512 sum[ROWS][NV];
  __mmask16 mask[NV];
  for (int v = 0; v < NV; ++v) mask[v] = mask_of(t.columns - v * WIDTH);
  for (int v = 0; v < NV; ++v) {
    __m512 begin = t.first && t.bias != nullptr ? _mm512_maskz_loadu_ps(mask[v], t.bias + v * WIDTH) : _mm512_setzero_ps();
    for (int i = 0; i < ROWS; ++i) {
      sum[i][v] = t.first ? begin : _mm512_maskz_loadu_ps(mask[v], t.c + i * t.c_row + v * WIDTH);
    }
  }
  const float* panel = t.panel;
  // Three rows an address register: x86 adds an index times 1, 2 or 4 in the instruction.
  const float* at[(ROWS + 2) / 3];
  for (int q = 0; q < (ROWS + 2) / 3; ++q) at[q] = t.a + 3 * q * t.a_row;
  const float* packed = t.a;
  for (int64_t p = 0; p < t.k; ++p) {
    __m512 b[NV];
    for (int v = 0; v < NV; ++v) b[v] = _mm512_load_ps(panel + v * WIDTH);
    panel += NR;
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i) {
      __m512 a = _mm512_set1_ps(PACKED ? packed[i] : at[i / 3][(i % 3) * t.a_row]);
      for (int v = 0; v < NV; ++v) sum[i][v] = _mm512_fmadd_ps(a, b[v], sum[i][v]);
    }
    if (PACKED) {
      packed += ROWS;
    } else {
      for (int q = 0; q < (ROWS + 2) / 3; ++q) ++at[q];
    }
  }
  const __m512 zero = _mm512_setzero_ps();
  for (int i = 0; i < ROWS; ++i) {
    for (int v = 0; v < NV; ++v) {
      __m512 x = sum[i][v];
      // max takes its second operand where one is NaN.
      if (t.last && t.relu) x = _mm512_max_ps(zero, x);
      if (t.last && t.where != nullptr) {
        __m512 of = _mm512_maskz_loadu_ps(mask[v], t.where + i * t.where_row + v * WIDTH);
        x = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(of, zero, _CMP_NLE_UQ), x);
      }
      _mm512_mask_storeu_ps(t.c + i * t.c_row + v * WIDTH, mask[v], x);
    }
  }
}

using TileFn = void (*)(const Tile&);
#define ROW_OF(NV, PACKED)                                                                                          \
  {                                                                                                                 \
    nullptr, tile<1, NV, PACKED>, tile<2, NV, PACKED>, tile<3, NV, PACKED>, tile<4, NV, PACKED>, tile<5, NV, PACKED>, \
        tile<6, NV, PACKED>, tile<7, NV, PACKED>, tile<8, NV, PACKED>, tile<9, NV, PACKED>, tile<10, NV, PACKED>,   \
        tile<11, NV, PACKED>, tile<12, NV, PACKED>                                                                  \
  }
constexpr TileFn TILES[2][2][MR + 1] = {{ROW_OF(1, false), ROW_OF(1, true)}, {ROW_OF(2, false), ROW_OF(2, true)}};

// to[c·NR + r] = from[r·row + c] for 16 × 16 elements; rows and columns beyond `rows` and `columns` are taken as 0.
void transpose(const float* from, int64_t row, int64_t rows, int64_t columns, float* to) {
  __m512 r[16], t[16];
  __mmask16 mask = mask_of(columns);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = i < rows ? _mm512_maskz_loadu_ps(mask, from + i * row) : _mm512_setzero_ps();
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  auto low = [](__m512 x, __m512 y) { return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))); };
  auto high = [](__m512 x, __m512 y) { return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))); };
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = low(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = high(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = low(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = high(t[4 * i + 1], t[4 * i + 3]);
  }
  // r[4g + c] has, in its quarter q, rows 4g to 4g + 3 of column 4q + c.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    __m512 even0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), odd0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
    __m512 even1 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88), odd1 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    t[4 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    t[8 + c] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    t[12 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
  if (columns >= 16) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_ps(to + i * NR, t[i]);
  } else {
    alignas(64) float rest[16][16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_ps(rest[i], t[i]);
    for (int i = 0; i < columns; ++i) _mm512_store_ps(to + i * NR, _mm512_load_ps(rest[i]));
  }
}

// Terms p to p + k of b, panel after panel, columns beyond n as 0.
void pack_b(const Product& of, int64_t p, int64_t k, float* to) {
  for (int64_t j = 0; j < of.n; j += NR, to += NR * k) {
    int64_t columns = of.n - j < NR ? of.n - j : NR;
    if (of.b_col == 1) {
      const float* from = of.b + p * of.b_row + j;
      __mmask16 low = mask_of(columns), high = mask_of(columns - WIDTH);
      for (int64_t i = 0; i < k; ++i, from += of.b_row) {
        _mm512_store_ps(to + i * NR, _mm512_maskz_loadu_ps(low, from));
        _mm512_store_ps(to + i * NR + WIDTH, _mm512_maskz_loadu_ps(high, from + WIDTH));
      }
    } else {
      const float* from = of.b + j * of.b_col + p;
      for (int64_t r = 0; r < NR; r += WIDTH) {
        if (columns <= r) break;  // the tiles of such a panel are one register wide
        for (int64_t i = 0; i < k; i += WIDTH) {
          transpose(from + r * of.b_col + i, of.b_col, columns - r, k - i, to + i * NR + r);
        }
      }
    }
  }
}

// Rows i to i + rows of a whose rows lie one after the other, terms p to p + k: term after term.
void pack_a(const Product& of, int64_t i, int64_t rows, int64_t p, int64_t k, float* to) {
  const float* from = of.a + i + p * of.a_col;
  __mmask16 mask = mask_of(rows);
  for (int64_t t = 0; t < k; ++t, from += of.a_col, to += rows) {
    _mm512_mask_storeu_ps(to, mask, _mm512_maskz_loadu_ps(mask, from));
  }
}

// Scalar products of rows of a and columns of b whose terms lie one after the other: R rows with C columns.
template <int R, int C>
void dots(const Product& of, int64_t i, int64_t j) {
  __m512 sum[R][C];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) sum[r][c] = _mm512_setzero_ps();
  }
  const float* a = of.a + i * of.a_row;
  const float* b = of.b + j * of.b_col;
  for (int64_t p = 0; p < of.k; p += WIDTH) {
    __mmask16 mask = mask_of(of.k - p);
    __m512 x[R];
    for (int r = 0; r < R; ++r) x[r] = _mm512_maskz_loadu_ps(mask, a + r * of.a_row + p);
    for (int c = 0; c < C; ++c) {
      __m512 y = _mm512_maskz_loadu_ps(mask, b + c * of.b_col + p);
      for (int r = 0; r < R; ++r) sum[r][c] = _mm512_fmadd_ps(x[r], y, sum[r][c]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) {
      float x = _mm512_reduce_add_ps(sum[r][c]);
      if (of.bias != nullptr) x += of.bias[j + c];
      if (of.relu && x < 0) x = 0;
      of.c[(i + r) * of.c_row + j + c] = x;
    }
  }
}

template <int R>
void dot_rows(const Product& of, int64_t i) {
  int64_t j = 0;
  constexpr int C = R <= 2 ? 8 : 4;
  for (; j + C <= of.n; j += C) dots<R, C>(of, i, j);
  for (; j < of.n; ++j) dots<R, 1>(of, i, j);
}

void product(const Product& of) {
  if (of.m <= 0 || of.n <= 0) return;
  if (of.m <= FEW && of.a_col == 1 && of.b_row == 1 && of.where == nullptr) {
    int64_t i = 0;
    for (; i + 4 <= of.m; i += 4) dot_rows<4>(of, i);
    if (i + 2 <= of.m) dot_rows<2>(of, i), i += 2;
    if (i < of.m) dot_rows<1>(of, i);
    return;
  }
  const bool packed = of.a_col != 1;
  const int64_t depth = of.k < KC ? of.k : KC;
  const int64_t panels = (of.n + NR - 1) / NR;
  // A last partial 16 × 16 block writes no row beyond its panel's, so panels need no margin.
  float* b = rl::pack_memory(panels * NR * depth + MC * depth + 2 * WIDTH);
  float* a = b + panels * NR * depth;
  for (int64_t p = 0; p < of.k || p == 0; p += KC) {
    const int64_t k = of.k - p < KC ? of.k - p : KC;
    pack_b(of, p, k, b);
    for (int64_t block = 0; block < of.m; block += MC) {
      const int64_t rows = of.m - block < MC ? of.m - block : MC;
      // Tiles as equal as can be: of 64 rows, four of 11 and two of 10.
      const int64_t tiles = (rows + MR - 1) / MR, least = rows / tiles, more = rows % tiles;
      if (packed) {
        for (int64_t t = 0, i = 0; t < tiles; ++t) {
          const int64_t height = least + (t < more);
          pack_a(of, block + i, height, p, k, a + i * k);
          i += height;
        }
      }
      for (int64_t panel = 0; panel < panels; ++panel) {
        const int64_t j = panel * NR, columns = of.n - j < NR ? of.n - j : NR;
        Tile now{};
        now.panel = b + j * k;
        now.k = k;
        now.c_row = of.c_row;
        now.columns = columns;
        now.first = p == 0;
        now.last = p + k >= of.k;
        now.bias = of.bias == nullptr ? nullptr : of.bias + j;
        now.relu = of.relu;
        now.where_row = of.where_row;
        const auto& kinds = TILES[columns > WIDTH][packed];
        for (int64_t t = 0, i = 0; t < tiles; ++t) {
          const int64_t height = least + (t < more), row = block + i;
          now.a = packed ? a + i * k : of.a + row * of.a_row + p;
          now.a_row = of.a_row;
          now.c = of.c + row * of.c_row + j;
          now.where = of.where == nullptr ? nullptr : of.where + row * of.where_row + j;
          kinds[height](now);
          i += height;
        }
      }
    }
  }
}

}  // namespace

namespace rl {

const Kernels& kernels_avx512() {
  static const Kernels table = {product, column_sums, tanh_backward, sum_of_squares, adam, lerp};
  return table;
}

}  // namespace rl
