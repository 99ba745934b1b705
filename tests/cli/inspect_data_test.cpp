// `mixtune inspect DATA`, with faulty records too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

class InspectData : public testing::Test {
 protected:
  InspectData() { write(work_ / "data.jsonl", "{\"text\": 5}\n{\"text\": \"one\"}\n\n{\"text\": \"two\"}\nrubbish\n"); }

  Outcome inspect(std::vector<std::string> more) const {
    more.insert(more.begin(), {"inspect", "data.jsonl"});
    return run_mixtune(more, work_.path());
  }

  TempFolder work_;
};

TEST_F(InspectData, FaultyRecordsAreNamedAndEndItWithTwo) {
  const Outcome outcome = inspect({});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.out, HasSubstr("records: 4\nrecords without a fault: 2\n"));
  EXPECT_THAT(outcome.out, HasSubstr("the first 2:\n  data.jsonl:1: 'text' is 5"));
  EXPECT_THAT(outcome.out, HasSubstr("\n  data.jsonl:5: is not valid JSON"));
  EXPECT_EQ(outcome.err,
            "mixtune: error: data.jsonl: 2 of 4 records are faulty; mend them, or write the others with --write-good "
            "FILE\n");
}

TEST_F(InspectData, TheOthersAreWrittenAndTrainable) {
  const Outcome outcome = inspect({"--write-good=good.jsonl"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read(work_ / "good.jsonl"), "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
  EXPECT_EQ(run_mixtune({"inspect", "good.jsonl"}, work_.path()).code, 0);
  const Outcome again = inspect({"--write-good=good.jsonl"});
  EXPECT_EQ(again.code, 2);
  EXPECT_THAT(again.err, HasSubstr("good.jsonl: exists already"));
}

TEST_F(InspectData, WhatIsForRecordsIsRefusedBesideAnythingElse) {
  for (const auto& [flag, name] :
       {std::pair("--write-good=x.jsonl", "--write-good"), {"--max_seq_length=8", "--max_seq_length"}}) {
    const Outcome outcome = run_mixtune({"inspect", ".", flag}, work_.path());
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(outcome.err, std::string("mixtune: error: ") + name +
                               ": has no effect on '.'; remove it, or name a file of records\n");
  }
}

}  // namespace
}  // namespace mixtune
