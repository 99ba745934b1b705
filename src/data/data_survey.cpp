#include "data/data_survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "data/check_ids.h"
#include "data/formats.h"
#include "data/label.h"
#include "data/marked_text.h"
#include "data/record_reader.h"

namespace mixtune {

namespace {

std::string keys_of(const nlohmann::ordered_json& record) {
  std::string keys;
  for (const auto& item : record.items()) keys += fmt::format("{}{}", keys.empty() ? "" : ", ", printable(item.key()));
  return printable(keys, 300);
}

double percent(int64_t part, int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0;
}

// The message without its digits, in which faults of a kind differ.
std::string without_numbers(std::string_view text) {
  std::string kind;
  for (const char c : text) {
    if (c < '0' || c > '9')
      kind += c;
    else if (!kind.ends_with('#'))
      kind += '#';
  }
  return kind;
}

// Writes the records without a fault, a line each. They get their name once all are there.
class GoodRecords {
 public:
  explicit GoodRecords(const std::string& path) : staged_(path), file_(staged_.path()) {}

  // Adds a record; one of an array may stand on several lines.
  void add(std::string_view text, const nlohmann::ordered_json& record) {
    const bool one_line = text.find('\n') == text.npos;
    lines_ += one_line ? std::string(text) : record.dump();
    lines_ += '\n';
    constexpr size_t kWritten = 1 << 20;
    if (lines_.size() >= kWritten) flush();
  }
  void finish() {
    flush();
    file_.finish();
    staged_.commit_new();
  }

 private:
  void flush() {
    file_.write(lines_);
    lines_.clear();
  }

  StagedPath staged_;
  OutputFile file_;
  std::string lines_;
};

class Surveyor {
 public:
  Surveyor(const std::string& path, const SurveyOptions& options, const TextEncoder& encoder)
      : path_(path), options_(options), encoder_(encoder), format_(options.format) {
    if (!options.good_path.empty()) good_.emplace(options.good_path);
  }

  DataSurvey run() {
    RecordReader reader(path_);
    for (std::string_view text; reader.next_text(text); ++records_) {
      const std::string where = reader.where();
      try {
        look(text, where);
      } catch (const UserError& error) {
        faults_.add(error.what(), where);
      }
    }
    if (records_ == 0) throw UserError(printable(path_, 200), "holds no records", "name a JSONL file with data");
    if (good_) good_->finish();
    return {text(), records_, faults_.count()};
  }

 private:
  void look(std::string_view text, const std::string& where) {
    const nlohmann::ordered_json json = parse_json_line(text, where);
    if (keys_.empty()) keys_ = keys_of(json);
    if (format_ == DatasetFormat::kAuto) format_ = detect_format(json, where);
    UnreadKeys unread;
    Record record = parse_record(json, format_, where, unread);
    std::array<int64_t, 4> turns{};
    if (const auto* conversation = std::get_if<Conversation>(&record))
      for (const Turn& turn : conversation->turns) ++turns[static_cast<size_t>(turn.role)];
    std::vector<TokenSequence> documents;
    if (encoder_.tokenizer || format_ == DatasetFormat::kTokenized)
      documents = encode_record(std::move(record), encoder_, where);
    const int64_t vocab_size =
        encoder_.tokenizer ? encoder_.tokenizer->vocab_size() : std::numeric_limits<int32_t>::max();
    for (const TokenSequence& document : documents) check_ids(document, vocab_size, where);
    unread_.add(unread);
    for (size_t role = 0; role < turns.size(); ++role) turns_[role] += turns[role];
    for (const TokenSequence& document : documents) count(document, where);
    if (good_) good_->add(text, json);
  }

  void count(const TokenSequence& document, const std::string& where) {
    const auto length = static_cast<int64_t>(document.ids.size());
    lengths_.add(length);
    const auto is_target = [](int32_t label) {
      return label != kIgnoreTarget;
    };
    const int64_t targets =
        length > 0 ? std::count_if(document.labels.begin() + 1, document.labels.end(), is_target) : 0;
    targets_ += targets;
    for (size_t i = 1; i < document.weights.size(); ++i)
      weighted_ += is_target(document.labels[i]) && document.weights[i] != 1;
    without_target_ += targets == 0;
    const int64_t beyond = length - options_.settings.max_seq_length;
    if (beyond > 0) {
      ++long_documents_;
      beyond_ += beyond;
    }
    if (encoder_.tokenizer && shown_ < options_.samples && length > 0) {
      ++shown_;
      samples_ += fmt::format("{}: {}\n", where, marked_text(*encoder_.tokenizer, document, options_.colour));
    }
  }

  std::string text() const {
    const int64_t good = records_ - faults_.count();
    std::string text = fmt::format("format: {}\nrecords: {}\n", format_name(format_), records_);
    if (faults_.count() > 0) text += fmt::format("records without a fault: {}\n", good);
    text += fmt::format("keys of the first record: {}\n", keys_);
    if (!unread_.empty()) text += fmt::format("keys not read: {}\n", unread_.text());
    if (const auto [system, user, assistant, tool] = turns_; user + assistant > 0)
      text += fmt::format("turns: {} system, {} user, {} assistant, {} tool\n", system, user, assistant, tool);
    return text + text_of_tokens() + faults_.text();
  }

  std::string text_of_tokens() const {
    if (lengths_.empty()) return "";
    std::string text = fmt::format("tokens: {}\ntargets: {} ({:.1f}% of the tokens)\n", lengths_.tokens(), targets_,
                                   percent(targets_, lengths_.tokens()));
    if (weighted_ > 0)
      text += fmt::format("targets of another weight than 1: {} ({:.1f}% of the targets)\n", weighted_,
                          percent(weighted_, targets_));
    if (without_target_ > 0)
      text += fmt::format("documents without a target: {}, which are dropped\n", without_target_);
    text += fmt::format("tokens a document: min {}, mean {:.1f}, max {}\n{}", lengths_.min(), lengths_.mean(),
                        lengths_.max(), lengths_.text());
    text += text_of_cuts();
    if (!samples_.empty())
      text +=
          fmt::format("samples, what is trained {}:\n{}", options_.colour ? "in green" : "between [[ and ]]", samples_);
    return text;
  }

  std::string text_of_cuts() const {
    const std::string longer = fmt::format("longer than max_seq_length {}: ", options_.settings.max_seq_length);
    if (long_documents_ == 0) return longer + "none\n";
    const SequenceFit fit = fit_of(options_.settings, format_ == DatasetFormat::kText);
    const char* becomes = fit.policy == LongDocuments::kSplit   ? "which are split"
                          : fit.policy == LongDocuments::kError ? "which a run refuses"
                                                                : "which are cut off";
    return longer + fmt::format("{} documents, {}, with {} tokens beyond it ({:.1f}%)\n", long_documents_, becomes,
                                beyond_, percent(beyond_, lengths_.tokens()));
  }

  const std::string& path_;
  const SurveyOptions& options_;
  const TextEncoder& encoder_;
  DatasetFormat format_;
  std::optional<GoodRecords> good_;
  std::string keys_, samples_;
  UnreadKeys unread_;
  Faults faults_;
  LengthHistogram lengths_;
  std::array<int64_t, 4> turns_{};  // by Role
  int64_t records_ = 0, targets_ = 0, weighted_ = 0, without_target_ = 0, long_documents_ = 0, beyond_ = 0, shown_ = 0;
};

}  // namespace

void LengthHistogram::add(int64_t length) {
  const auto range = static_cast<size_t>(length > 1 ? std::bit_width(static_cast<uint64_t>(length - 1)) : 0);
  if (counts_.size() <= range) counts_.resize(range + 1);
  ++counts_[range];
  min_ = documents_ == 0 ? length : std::min(min_, length);
  max_ = std::max(max_, length);
  ++documents_;
  tokens_ += length;
}

std::string LengthHistogram::text() const {
  constexpr int64_t kBar = 40;
  const int64_t most = std::ranges::max(counts_);
  const auto first = std::ranges::find_if(counts_, [](int64_t count) { return count > 0; }) - counts_.begin();
  std::string text;
  for (auto range = static_cast<size_t>(first); range < counts_.size(); ++range) {
    const int64_t low = range == 0 ? 0 : (int64_t{1} << (range - 1)) + 1, high = int64_t{1} << range;
    const auto bar = static_cast<size_t>((counts_[range] * kBar + most - 1) / most);
    text += fmt::format("{:>10} to {:<9} {:>10}  {}\n", low, high, counts_[range], std::string(bar, '#'));
  }
  return text;
}

void Faults::add(const std::string& message, const std::string& where) {
  ++count_;
  if (first_.size() < kShown) first_.push_back(message);
  const size_t place = message.starts_with(where) ? where.size() : 0;
  const size_t colon = message.find(": ", place);
  const std::string kind = without_numbers(colon == message.npos ? message : message.substr(colon + 2));
  if (const auto known = kinds_.find(kind); known != kinds_.end())
    ++known->second;
  else if (kinds_.size() < kMostKinds)
    kinds_.emplace(kind, 1);
  else
    ++other_kinds_;
}

std::string Faults::text() const {
  if (count_ == 0) return "";
  std::vector<std::pair<int64_t, std::string_view>> kinds;
  for (const auto& [kind, count] : kinds_) kinds.emplace_back(-count, kind);
  std::ranges::sort(kinds);
  std::string text = fmt::format("faulty records: {}\n", count_);
  for (size_t i = 0; i < std::min(kinds.size(), kShown); ++i)
    text += fmt::format("{:>10} x {}\n", -kinds[i].first, kinds[i].second);
  if (kinds.size() > kShown || other_kinds_ > 0) text += "           and others\n";
  text += fmt::format("the first {}:\n", first_.size());
  for (const std::string& message : first_) text += fmt::format("  {}\n", message);
  return text;
}

DataSurvey survey_data_file(const std::string& path, const SurveyOptions& options, const TextEncoder& encoder) {
  return Surveyor(path, options, encoder).run();
}

}  // namespace mixtune
