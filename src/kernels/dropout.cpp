#include "kernels/dropout.h"

#include "kernels/cuda_ops.h"
#include "kernels/dropout_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void drop_out(Ctx& ctx, const DropOut& args) {
  const Dropout& dropout = args.dropout;
  MT_CHECK(args.y.shape == args.x.shape && args.y.dtype == args.x.dtype && dropout.share >= 0 && dropout.share < 1);
  MT_CHECK(!dropout.numbers || (dropout.numbers.dtype == DType::kI64 && dropout.numbers.rows() == args.x.rows()));
  on_device(
      ctx, args.x.dtype, [&]<class S>(S) { cpu::drop_out<S>(args); }, [&] { cuda::drop_out(ctx, args); });
}

}  // namespace mixtune
