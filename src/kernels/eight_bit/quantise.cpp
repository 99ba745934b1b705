#include "kernels/eight_bit/quantise.h"

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/quantise_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

CodedGroup coded_group(const RowGroups& groups, int64_t index, int64_t columns) {
  return {.index = index, .begin = groups.begin[index], .rows = align_rows(groups.count[index]), .columns = columns};
}

int64_t scales_begin(DType scales, CodesForm form, const CodedGroup& group) {
  if (scales == DType::kF8E8M0) return group.mx_begin();
  switch (form) {
    case CodesForm::kRows:
      return group.rows_begin();
    case CodesForm::kColumns:
      return group.columns_begin();
    case CodesForm::kSquares:
      return group.squares_begin();
    case CodesForm::kTurned:
      return group.turned_begin();
  }
  MT_CHECK(false);
}

int64_t scale_index(DType scales, CodesForm form, const CodedGroup& group, int64_t row, int64_t column) {
  const int64_t begin = scales_begin(scales, form, group);
  if (scales == DType::kF8E8M0)
    return begin + (is_transposed(form) ? group.mx_of_columns().at(column, (row - group.begin) / kMxBlock)
                                        : group.mx_of_rows().at(row - group.begin, column / kMxBlock));
  switch (form) {
    case CodesForm::kRows:
      return begin + group.of_row(row, column / kScaleBlock);
    case CodesForm::kColumns:
      return begin + group.of_column(row, column);
    case CodesForm::kSquares:
      return begin + group.of_square(row, column / kScaleBlock);
    case CodesForm::kTurned:
      return begin + group.of_turned(row, column / kScaleBlock);
  }
  MT_CHECK(false);
}

void quantise(Ctx& ctx, const Quantise& args) {
  MT_CHECK(args.x.rows() % kScaleBlock == 0 && args.x.shape[1] % kScaleBlock == 0);
  MT_CHECK(args.groups.groups <= kMaxCodedGroups);
  for (const Codes& out : {args.rows, args.columns, args.squares, args.turned})
    MT_CHECK(!out || out.scales.dtype == codes_kind(args.scale).scales);
  on_device(
      ctx, "operands to 8 bits", args.x.dtype, [&]<class S>(S) { cpu::quantise<S>(args); },
      [&] { (args.scale == ScaleRule::kMx ? cuda::quantise_mx : cuda::quantise)(ctx, args); });
}

size_t CodesShape::bytes() const {
  return align_up(static_cast<size_t>(codes.elements())) + align_up(static_cast<size_t>(scales) * dtype_size(scale));
}

namespace {

// How many scales there are of the matrix.
int64_t scales_of(CodesForm form, const CodesOfMatrix& of) {
  const CodedGroup end = {.index = of.groups, .begin = of.matrix[0], .columns = of.matrix[1]};
  return scales_begin(codes_kind(of.scale).scales, form, end);
}

}  // namespace

CodesShape codes_shape(CodesForm form, const CodesOfMatrix& of) {
  const Shape& matrix = of.matrix;
  return {.codes = is_transposed(form) ? Shape{matrix[1], matrix[0]} : matrix,
          .scales = scales_of(form, of),
          .scale = codes_kind(of.scale).scales};
}

Codes push_codes(Ctx& ctx, CodesForm form, const CodesOfMatrix& of) {
  const CodesShape shape = codes_shape(form, of);
  return {.codes = ctx.stack.push("operand in codes", shape.codes, DType::kF8E4M3),
          .scales = ctx.stack.push("scales of an operand", {shape.scales}, shape.scale)};
}

}  // namespace mixtune
