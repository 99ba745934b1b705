// docs/configuration.md lists the keys as the table in keys.cpp has them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "base/test_paths.h"
#include "config/keys.h"

namespace mixtune {
namespace {

// The row that docs/configuration.md has for `key`.
std::string doc_row(const Key& key) {
  const std::string shown = format_value(key, key.get(Config()));
  return fmt::format("| `{}` | `{}` | {}{} |", key.name, shown, key.help,
                     key.type == KeyType::kChoice && key.choices.size() > 1
                         ? fmt::format(" (`{}`)", fmt::join(key.choices, "`, `"))
                         : "");
}

TEST(Docs, KeysDefaultsAndMeaningsAgree) {
  std::ifstream file(source_path("docs/configuration.md"));
  ASSERT_TRUE(file);
  std::vector<std::string> rows;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("| `") && rows.size() < keys().size()) rows.push_back(line);
  ASSERT_EQ(rows.size(), keys().size());
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], doc_row(keys()[i]));
}

}  // namespace
}  // namespace mixtune
