#include "model/principal_pair.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "base/random_normals.h"
#include "kernels/gemm/gemm.h"

namespace mixtune {

namespace {

constexpr int64_t kMoreVectors = 8, kIterations = 8;

using Square = std::vector<double>;  // [q, q], row by row

// A few vectors of one length, side by side.
struct Vectors {
  int64_t rows, q;
  std::vector<float> values;  // [rows, q]

  Vectors(int64_t length, int64_t count) : rows(length), q(count), values(static_cast<size_t>(length * count)) {}
  float* row(int64_t i) { return values.data() + i * q; }
  const float* row(int64_t i) const { return values.data() + i * q; }
  Tensor tensor() { return host_tensor(values.data(), {rows, q}); }
};

// x^T x, in fp64: of stretches of rows side by side, which are added in their order.
Square gram(const Vectors& x) {
  constexpr int64_t kRows = 256;
  const auto size = static_cast<size_t>(x.q * x.q);
  const int64_t parts = (x.rows + kRows - 1) / kRows;
  std::vector<Square> sums(static_cast<size_t>(parts));
#pragma omp parallel for
  for (int64_t part = 0; part < parts; ++part) {
    Square& sum = sums[static_cast<size_t>(part)];
    sum.resize(size);
    for (int64_t i = part * kRows; i < std::min((part + 1) * kRows, x.rows); ++i)
      for (int64_t k = 0; k < x.q; ++k) {
        const auto factor = static_cast<double>(x.row(i)[k]);
        for (int64_t l = 0; l < x.q; ++l) sum[static_cast<size_t>(k * x.q + l)] += factor * x.row(i)[l];
      }
  }
  Square all(size);
  for (const Square& sum : sums)
    for (size_t i = 0; i < size; ++i) all[i] += sum[i];
  return all;
}

// R of g = R^T R, upper triangular. A vector that is a sum of those before it gets 0 on the diagonal.
Square cholesky(const Square& g, int64_t q) {
  constexpr double kDependent = 1e-12;
  Square r(g.size());
  const auto at = [q](auto& square, int64_t i, int64_t j) -> auto& {
    return square[static_cast<size_t>(i * q + j)];
  };
  for (int64_t i = 0; i < q; ++i)
    for (int64_t j = i; j < q; ++j) {
      double rest = at(g, i, j);
      for (int64_t k = 0; k < i; ++k) rest -= at(r, k, i) * at(r, k, j);
      if (j == i)
        at(r, i, i) = rest > kDependent * at(g, i, i) ? std::sqrt(rest) : 0;
      else if (at(r, i, i) > 0)
        at(r, i, j) = rest / at(r, i, i);
    }
  return r;
}

// Makes the vectors orthogonal and of length 1; what depends on those before it becomes 0. Cholesky's QR, twice: the
// second makes up for what the first loses where they are nearly dependent.
void orthonormalise(Vectors& x) {
  for (int time = 0; time < 2; ++time) {
    const Square r = cholesky(gram(x), x.q);
#pragma omp parallel for
    for (int64_t i = 0; i < x.rows; ++i)
      for (int64_t j = 0; j < x.q; ++j) {
        double rest = x.row(i)[j];
        for (int64_t k = 0; k < j; ++k) rest -= x.row(i)[k] * r[static_cast<size_t>(k * x.q + j)];
        const double length = r[static_cast<size_t>(j * x.q + j)];
        x.row(i)[j] = length > 0 ? static_cast<float>(rest / length) : 0;
      }
  }
}

// The eigenvectors of g, which is symmetric: those of the largest values first.
struct Eigen {
  std::vector<double> values;
  Square vectors;  // [q, q]: vectors[k q + i] is element i of vector k
};

// Jacobi's rotations, each of which makes an element beside the diagonal 0, until all are nearly so.
Eigen eigen_of(Square g, int64_t q) {
  constexpr int kSweeps = 60;
  constexpr double kSmall = 1e-15;
  const auto at = [q](Square& square, int64_t i, int64_t j) -> double& {
    return square[static_cast<size_t>(i * q + j)];
  };
  Square vectors(g.size());
  for (int64_t k = 0; k < q; ++k) at(vectors, k, k) = 1;
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kSweeps; ++sweep) {
    rotated = false;
    for (int64_t i = 0; i < q; ++i)
      for (int64_t j = i + 1; j < q; ++j) {
        const double beside = at(g, i, j), one = at(g, i, i), other = at(g, j, j);
        if (std::abs(beside) <= kSmall * std::sqrt(std::abs(one * other))) continue;
        rotated = true;
        const double half = (other - one) / (2 * beside);
        const double t = (half < 0 ? -1 : 1) / (std::abs(half) + std::hypot(half, 1.0));
        const double c = 1 / std::hypot(t, 1.0), s = t * c;
        for (int64_t k = 0; k < q; ++k) {
          const double of_i = at(g, k, i), of_j = at(g, k, j);
          at(g, k, i) = c * of_i - s * of_j;
          at(g, k, j) = s * of_i + c * of_j;
        }
        for (int64_t k = 0; k < q; ++k) {
          const double of_i = at(g, i, k), of_j = at(g, j, k);
          at(g, i, k) = c * of_i - s * of_j;
          at(g, j, k) = s * of_i + c * of_j;
          const double v_i = at(vectors, i, k), v_j = at(vectors, j, k);
          at(vectors, i, k) = c * v_i - s * v_j;
          at(vectors, j, k) = s * v_i + c * v_j;
        }
      }
  }
  std::vector<int64_t> order(static_cast<size_t>(q));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](int64_t k) { return at(g, k, k); });
  Eigen sorted;
  for (const int64_t k : order) {
    sorted.values.push_back(at(g, k, k));
    sorted.vectors.insert(sorted.vectors.end(), vectors.begin() + k * q, vectors.begin() + (k + 1) * q);
  }
  return sorted;
}

// sum_i x[row, i] vector[i]
double combined(const Vectors& x, int64_t row, const double* vector) {
  double sum = 0;
  for (int64_t i = 0; i < x.q; ++i) sum += x.row(row)[i] * vector[i];
  return sum;
}

}  // namespace

PrincipalPair principal_pair(std::span<const float> w, int64_t out, int64_t in, int64_t rank, double s, uint64_t key) {
  MT_CHECK(rank <= std::min(out, in) && s > 0 && static_cast<int64_t>(w.size()) == out * in);
  const int64_t q = std::min({rank + kMoreVectors, out, in});
  Stack stack("not used", {}, 1);
  Ctx ctx{{}, stack, stack};
  const Tensor matrix = host_tensor(w.data(), {out, in});
  Vectors x(out, q), z(in, q);
  for (int64_t j = 0; j < in; ++j)
    random_normals(key, static_cast<uint64_t>(j * q), 1, {z.row(j), static_cast<size_t>(q)});
  for (int64_t i = 0; i < kIterations; ++i) {
    gemm(ctx, {.a = matrix, .b = z.tensor(), .c = x.tensor()});
    orthonormalise(x);
    gemm(ctx, {.a = matrix, .b = x.tensor(), .c = z.tensor(), .trans_a = true});
    if (i + 1 < kIterations) orthonormalise(z);
  }
  // Now w is about x z^T, and z^T z's eigenvalues are the squares of the singular values.
  const Eigen eigen = eigen_of(gram(z), q);
  constexpr double kZero = 1e-12;  // of the largest square
  PrincipalPair pair = {std::vector<float>(static_cast<size_t>(rank * in)),
                        std::vector<float>(static_cast<size_t>(out * rank))};
  for (int64_t k = 0; k < rank; ++k) {
    const double square = eigen.values[static_cast<size_t>(k)];
    if (square <= kZero * eigen.values[0]) break;
    const double* const vector = eigen.vectors.data() + k * q;
    const double value = std::sqrt(square), root = std::sqrt(value / s);
#pragma omp parallel for
    for (int64_t i = 0; i < out; ++i)
      pair.b[static_cast<size_t>(i * rank + k)] = static_cast<float>(root * combined(x, i, vector));
#pragma omp parallel for
    for (int64_t j = 0; j < in; ++j)
      pair.a[static_cast<size_t>(k * in + j)] = static_cast<float>(root / value * combined(z, j, vector));
  }
  return pair;
}

}  // namespace mixtune
