// A conversation is what each of its turns would be from the beginning.
#include "generate/chat.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/test_paths.h"

namespace mixtune {
namespace {

const std::string kModel = "examples/quickstart/pretrained";

class ChatTest : public testing::Test {
 protected:
  ChatTest() { prompter_.add_ends(ends_.ids); }

  // What the model answers at the end of a conversation, computed from its first token.
  std::string from_the_beginning(const Conversation& conversation) {
    std::vector<int32_t> ids = prompter_.encode(conversation, "here");
    TextStream stream = prompter_.stream(ids);
    std::string text;
    other_.cut(0, 0);
    continue_texts(other_, {&ids, 1}, ends_, sampling_, [&](size_t) { text += stream.add(ids.back()); });
    return text + stream.finish();
  }

  MixtralConfig config_ = load_mixtral_config(source_path(kModel));
  Prompter prompter_{source_path(kModel), config_, {.chat = true, .system = "Be brief."}};
  Decoder decoder_{config_, {source_path(kModel)}, {1, 400}, {}}, other_{config_, {source_path(kModel)}, {1, 400}, {}};
  TextEnds ends_ = {.ids = {}, .most_tokens = 12};
  Sampling sampling_ = {.temperature = 0.7, .seed = 9};
};

TEST_F(ChatTest, AnswersAreThoseFromTheBeginning) {
  Chat chat(decoder_, prompter_, ends_, sampling_);
  Conversation conversation = prompter_.new_conversation();
  int64_t kept = 0;
  for (const char* turn : {"Define: otter (noun)", "And a daisy?", "\xE6\xB0\xB4", "Why?"}) {
    std::string answer;
    chat.answer(turn, "here", [&](const std::string& piece) { answer += piece; });
    conversation.turns.push_back({.role = Role::kUser, .text = turn});
    EXPECT_EQ(answer, from_the_beginning(conversation)) << turn;
    ASSERT_FALSE(answer.empty()) << turn;
    conversation.turns.push_back({.role = Role::kAssistant, .text = answer});
    EXPECT_EQ(chat.reuse().tokens, std::ssize(prompter_.encode(
                                       {.turns = {conversation.turns.begin(), conversation.turns.end() - 1}}, "here")));
    EXPECT_GE(chat.reuse().kept, kept) << turn;
    kept = chat.reuse().kept;
  }
  EXPECT_GT(kept, 20);
}

TEST_F(ChatTest, AnEmptyAnswerIsForgotten) {
  ends_.most_tokens = 0;
  Chat chat(decoder_, prompter_, ends_, {});
  std::vector<int64_t> tokens;
  for (int i = 0; i < 3; ++i) {
    chat.answer("Define: otter", "here", [](const std::string& piece) { EXPECT_EQ(piece, ""); });
    tokens.push_back(chat.reuse().tokens);
  }
  EXPECT_EQ(tokens, std::vector<int64_t>(3, tokens[0]));
}

TEST_F(ChatTest, AConversationThatIsTooLongIsRefused) {
  config_.max_position_embeddings = 60;
  const Prompter prompter(source_path(kModel), config_, {.chat = true});
  Chat chat(decoder_, prompter, ends_, {});
  const auto talk = [&] {
    for (int i = 0; i < 20; ++i) chat.answer("Define: otter (noun)", "line 7", [](const std::string&) {});
  };
  try {
    talk();
    ADD_FAILURE();
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()).find("line 7: its "), 0u) << error.what();
  }
}

// The decoder may have less room than the model.
TEST_F(ChatTest, AConversationBeyondTheDecodersRoomIsRefused) {
  Decoder small(config_, {source_path(kModel)}, {1, 60}, {});
  Chat chat(small, prompter_, ends_, {});
  std::string told;
  try {
    for (int i = 0; i < 20; ++i) chat.answer("Define: otter (noun)", "line 7", [](const std::string&) {});
  } catch (const UserError& error) {
    told = error.what();
  }
  EXPECT_EQ(told.find("line 7: its "), 0u) << told;
  EXPECT_NE(told.find("leave no room in a conversation of 60"), told.npos) << told;
}

}  // namespace
}  // namespace mixtune
