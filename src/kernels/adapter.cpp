#include "kernels/adapter.h"

#include "kernels/adapter_cpu.h"
#include "kernels/cuda_ops.h"
#include "kernels/on_device.h"

namespace mixtune {

namespace {

void check(const Tensor& b, const AdaptedModules& modules, const Tensor& expanded) {
  MT_CHECK(b.shape.rank() == expanded.shape.rank() && (b.shape.rank() == 2 || b.shape[0] == expanded.shape[0]));
  MT_CHECK(b.shape[-2] == modules.row_count() && expanded.shape[-1] == modules.size * b.shape[-1]);
  int64_t end = 0;
  for (int i = 0; i < modules.size; ++i) {
    MT_CHECK(modules.rows[i].first >= end);
    end = modules.rows[i].first + modules.rows[i].count;
  }
  MT_CHECK(end <= expanded.shape[-2]);
}

}  // namespace

void expand_adapter(Ctx& ctx, const ExpandAdapter& args) {
  check(args.b, args.modules, args.expanded);
  MT_CHECK(args.b.dtype == args.expanded.dtype);
  on_device(
      ctx, args.b.dtype, [&]<class S>(S) { cpu::expand_adapter<S>(args); }, [&] { cuda::expand_adapter(ctx, args); });
}

void fold_adapter(Ctx& ctx, const FoldAdapter& args) {
  check(args.db, args.modules, args.dexpanded);
  on_device(
      ctx, args.db.dtype, [&]<class S>(S) { cpu::fold_adapter<S>(args); }, [&] { cuda::fold_adapter(ctx, args); });
}

}  // namespace mixtune
