// WindowRows: Megatron-Core's windows of indexed data, or of a blend of several, as rows.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/blend.h"
#include "data/gpt_sample.h"
#include "data/gpt_windows.h"
#include "data/row_source.h"
#include "data/window_data.h"

namespace mixtune {

struct WindowRowOptions {
  int64_t seq_length = 0;
  std::optional<int64_t> samples;  // rows; none: as many as `epochs` have
  double epochs = 1;
  uint32_t seed = 0;
  bool shuffle = true;
  GptMasking masking;
};

// The samples that Megatron's GPTDataset gives for `samples`, in its order; for several sets, or one with a weight, its
// BlendedDataset's. So another number of samples is another order. An epoch is as many rows as the sets have windows
// together when each is cut once. Without weights rows are drawn in proportion to these, and each set gives its windows
// once in an epoch. For more than an epoch, for which Megatron builds no such blend, each is cut as often as its share
// needs. Takes 12 bytes of memory for each row and 4 for each sequence of each epoch, and 6 more for each row of a
// blend.
class WindowRows : public RowSource {
 public:
  // Takes at least one set. Throws UserError (`where`) where there is no window of seq_length + 1 tokens in one of them
  // (in any, where they have weights), or there are 2^31 rows or more.
  WindowRows(std::vector<WindowSet> sets, const WindowRowOptions& options, const std::string& where);

  int64_t rows() const override { return rows_; }
  int64_t max_tokens() const override { return options_.seq_length; }
  int64_t max_documents() const override { return max_documents_; }
  bool weighted() const override { return false; }
  double epochs_done(int64_t count) override;
  RowCounts count(int64_t row) override;
  RowCounts read(int64_t row, const RowRoom& room) override;

  int64_t epoch_rows() const { return epoch_rows_; }

 private:
  void count_rows(const std::string& where);
  void cut(const std::string& where);
  void draw(Blend blend);
  void make_room();
  const WindowSet& find(int64_t row);

  std::vector<WindowSet> sets_;
  WindowRowOptions options_;
  std::vector<int64_t> epoch_windows_;  // of each set
  int64_t epoch_rows_ = 0, rows_ = 0, max_documents_ = 1;
  std::vector<GptWindows> windows_;  // of each set
  std::vector<uint16_t> set_of_;     // the set of each row of a blend
  std::vector<uint32_t> window_of_;  // and its window there
  std::vector<WindowPart> parts_;    // those of the row found last
  GptSample sample_;                 // the sample read last
};

}  // namespace mixtune
