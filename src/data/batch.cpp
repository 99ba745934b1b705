#include "data/batch.h"

namespace mixtune {

Batch to_device(Ctx& ctx, const Batch& host) {
  if (!ctx.like_gpu()) return host;
  const auto upload = [&](const char* name, const Tensor& from) {
    const Tensor to = ctx.stack.push(name, from.shape, from.dtype);
    copy(ctx, from, to);
    return to;
  };
  return {.ids = upload("ids", host.ids),
          .positions = upload("positions", host.positions),
          .target_rows = upload("target rows", host.target_rows),
          .targets = upload("targets", host.targets),
          .weights = host.weights ? upload("weights of targets", host.weights) : Tensor{},
          .doc_offsets = upload("document offsets", host.doc_offsets),
          .rows_by_id = {upload("ids by id", host.rows_by_id.ids), upload("begins by id", host.rows_by_id.begin),
                         upload("rows by id", host.rows_by_id.rows)},
          .host_doc_offsets = host.host_doc_offsets,
          .sequences = host.sequences ? upload("sequences", host.sequences) : Tensor{},
          .continues = host.continues,
          .live_tokens = host.live_tokens,
          .first_token = host.first_token,
          .step_tokens = host.step_tokens};
}

}  // namespace mixtune
