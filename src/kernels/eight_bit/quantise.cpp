#include "kernels/eight_bit/quantise.h"

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/quantise_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

namespace {

Codes push(Ctx& ctx, const CodesShape& shape) {
  return {.codes = ctx.stack.push("operand in codes", shape.codes, DType::kF8E4M3),
          .scales = ctx.stack.push("scales of an operand", {shape.scales}, DType::kF32)};
}

}  // namespace

CodedGroup coded_group(const RowGroups& groups, int64_t index, int64_t columns) {
  return {.index = index, .begin = groups.begin[index], .rows = align_rows(groups.count[index]), .columns = columns};
}

void quantise(Ctx& ctx, const Quantise& args) {
  MT_CHECK(args.x.rows() % kScaleBlock == 0 && args.x.shape[1] % kScaleBlock == 0);
  MT_CHECK(args.scale != ScaleRule::kMx && args.groups.groups <= kMaxCodedGroups);
  on_device(
      ctx, "operands to 8 bits", args.x.dtype, [&]<class S>(S) { cpu::quantise<S>(args); },
      [&] { cuda::quantise(ctx, args); });
}

size_t CodesShape::bytes() const {
  return align_up(static_cast<size_t>(codes.elements())) + align_up(static_cast<size_t>(scales) * sizeof(float));
}

CodesShape rows_shape(const Shape& matrix) {
  return {matrix, matrix.elements() / kScaleBlock};
}

CodesShape columns_shape(const Shape& matrix) {
  return {{matrix[1], matrix[0]}, matrix.elements() / kScaleBlock};
}

CodesShape squares_shape(const Shape& matrix) {
  return {matrix, matrix[0] / kScaleBlock * CodedGroup::padded(matrix[1] / kScaleBlock)};
}

CodesShape turned_shape(const Shape& matrix, int64_t groups) {
  const CodedGroup end = {.index = groups, .begin = matrix[0], .columns = matrix[1]};
  return {{matrix[1], matrix[0]}, end.turned_begin()};
}

Codes push_rows(Ctx& ctx, const Shape& matrix) {
  return push(ctx, rows_shape(matrix));
}

Codes push_columns(Ctx& ctx, const Shape& matrix) {
  return push(ctx, columns_shape(matrix));
}

Codes push_squares(Ctx& ctx, const Shape& matrix) {
  return push(ctx, squares_shape(matrix));
}

Codes push_turned(Ctx& ctx, const Shape& matrix, int64_t groups) {
  return push(ctx, turned_shape(matrix, groups));
}

}  // namespace mixtune
