// DataSurvey: reports what a file of records holds, the faulty ones included.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/record.h"
#include "data/sequence_fit.h"
#include "data/text_encoder.h"
#include "data/unread_keys.h"

namespace mixtune {

struct SurveyOptions {
  DatasetFormat format = DatasetFormat::kAuto;
  DataSettings settings;  // max_seq_length, long_documents
  int64_t samples = 2;    // documents to show whole, with marks where they are trained
  bool colour = false;    // marks are colours; false: "[[" and "]]"
  std::string good_path;  // where records without a fault go; "": nowhere
};

// Counts the lengths of documents by powers of two.
class LengthHistogram {
 public:
  void add(int64_t length);
  bool empty() const { return documents_ == 0; }
  double mean() const { return static_cast<double>(tokens_) / static_cast<double>(documents_); }
  int64_t documents() const { return documents_; }
  int64_t tokens() const { return tokens_; }
  int64_t min() const { return min_; }
  int64_t max() const { return max_; }
  // The histogram: a line for each range from the shortest to the longest, with its bounds, its documents, and a bar.
  std::string text() const;

 private:
  std::vector<int64_t> counts_;  // [k]: lengths in (2^(k-1), 2^k]
  int64_t documents_ = 0, tokens_ = 0, min_ = 0, max_ = 0;
};

// Collects what is wrong with records: the first faults with their places, all by kind.
class Faults {
 public:
  // `message` begins with `where`, the place of the record.
  void add(const std::string& message, const std::string& where);
  int64_t count() const { return count_; }
  std::string text() const;

 private:
  static constexpr size_t kShown = 20, kMostKinds = 1000;

  int64_t count_ = 0;
  std::vector<std::string> first_;
  std::map<std::string, int64_t> kinds_;  // messages without their numbers
  int64_t other_kinds_ = 0;               // faults of kinds beyond those told apart
};

// Lines of text: format, records, turns by role, the first record's keys and those not read, the faults and, where
// there is a tokenizer (or the file needs none), tokens, targets, lengths, what max_seq_length cuts, and samples.
// `encoder` is as load_documents takes it. With `good_path`, records without a fault are written there, a line each.
struct DataSurvey {
  std::string text;
  int64_t records = 0, faulty = 0;
};

// Reads the whole file. Throws UserError where it cannot be read to its end (it is cut, a record is too long), has no
// records, or `good_path` exists.
DataSurvey survey_data_file(const std::string& path, const SurveyOptions& options, const TextEncoder& encoder);

}  // namespace mixtune
