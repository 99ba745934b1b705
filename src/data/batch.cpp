#include "data/batch.h"

#include <algorithm>

namespace mixtune {

IdIndex index_ids(const Tensor& ids, const IdIndex& room, uint64_t* sorted) {
  const int64_t live = ids.elements();
  for (int64_t row = 0; row < live; ++row) sorted[row] = static_cast<uint64_t>(ids.as<int32_t>()[row]) << 32 | row;
  std::sort(sorted, sorted + live);
  int32_t *unique = room.ids.as<int32_t>(), *begin = room.begin.as<int32_t>(), *rows = room.rows.as<int32_t>();
  int64_t count = 0;
  for (int64_t i = 0; i < live; ++i) {
    const auto id = static_cast<int32_t>(sorted[i] >> 32);
    rows[i] = static_cast<int32_t>(sorted[i]);
    if (count > 0 && unique[count - 1] == id) continue;
    begin[count] = static_cast<int32_t>(i);
    unique[count++] = id;
  }
  begin[count] = static_cast<int32_t>(live);
  return {room.ids.slice(0, count), room.begin.slice(0, count + 1), room.rows.slice(0, live)};
}

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
          .live_tokens = host.live_tokens,
          .step_tokens = host.step_tokens};
}

}  // namespace mixtune
