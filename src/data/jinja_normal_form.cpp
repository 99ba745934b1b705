#include "data/jinja_normal_form.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

namespace mixtune {

namespace {

struct Token {
  enum class Kind { kName, kString, kOther } kind;
  std::string text;  // for a string, its content
  bool is(std::string_view operator_text) const { return kind == Kind::kOther && text == operator_text; }
  bool joins() const { return is("+") || is("~"); }
};
using Tokens = std::vector<Token>;

// Text between tags, or a tag.
struct Fragment {
  enum class Kind { kText, kOutput, kBlock } kind;
  std::string text;  // kText
  Tokens tokens;     // of a tag
};

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}

// The content of the string literal at `at`, which moves behind it.
std::string unescaped(std::string_view source, size_t& at) {
  const char quote = source[at++];
  std::string text;
  while (at < source.size() && source[at] != quote) {
    if (source[at] != '\\' || at + 1 == source.size()) {
      text += source[at++];
      continue;
    }
    constexpr std::string_view kFrom = "nrt\\'\"", kTo = "\n\r\t\\'\"";
    if (const size_t i = kFrom.find(source[at + 1]); i != kFrom.npos)
      text += kTo[i];
    else
      text.append(source, at, 2);
    at += 2;
  }
  at = std::min(at + 1, source.size());
  return text;
}

Tokens tokens_of(std::string_view tag) {
  Tokens tokens;
  for (size_t at = 0; at < tag.size();) {
    const char c = tag[at];
    if (std::isspace(static_cast<unsigned char>(c))) {
      ++at;
    } else if (c == '\'' || c == '"') {
      tokens.push_back({Token::Kind::kString, unescaped(tag, at)});
    } else if (is_word(c)) {
      const size_t begin = at;
      while (at < tag.size() && is_word(tag[at])) ++at;
      tokens.push_back({Token::Kind::kName, std::string(tag.substr(begin, at - begin))});
    } else {
      const bool twin =
          at + 1 < tag.size() && tag[at + 1] == '=' && std::string_view("=!<>").find(c) != std::string::npos;
      tokens.push_back({Token::Kind::kOther, std::string(tag.substr(at, twin ? 2 : 1))});
      at += twin ? 2 : 1;
    }
  }
  return tokens;
}

// The end of the tag that begins at `at`: before its closing mark.
size_t end_of_tag(std::string_view source, size_t at, std::string_view close) {
  if (close == "#}") return std::min(source.find(close, at), source.size());
  while (at < source.size() && !source.substr(at).starts_with(close)) {
    if (source[at] == '\'' || source[at] == '"')
      unescaped(source, at);
    else
      ++at;
  }
  return at;
}

void strip_end(std::string& text) {
  text.resize(text.find_last_not_of(" \t\n\r\v\f") + 1);
}

// Does lstrip_blocks: a block tag takes the white space before it in its line.
void strip_line(std::string& text) {
  const size_t line = text.rfind('\n') + 1;  // 0, where there is none
  if (text.find_first_not_of(" \t", line) == text.npos) text.resize(line);
}

// Text and tags, once their white space control has been done.
std::vector<Fragment> pieces_of(std::string_view source) {
  if (source.ends_with('\n')) source.remove_suffix(1);
  std::vector<Fragment> pieces;
  std::string text;
  bool line_begins = true;  // where `text` begins
  for (size_t at = 0; at < source.size();) {
    const bool opens = source[at] == '{' && at + 1 < source.size() &&
                       std::string_view("{%#").find(source[at + 1]) != std::string::npos;
    if (!opens) {
      text += source[at++];
      continue;
    }
    const char kind = source[at + 1];
    const std::string close = {kind == '{' ? '}' : kind, '}'};
    size_t begin = at + 2;
    const bool strips_before = begin < source.size() && source[begin] == '-';
    const bool keeps_before = begin < source.size() && source[begin] == '+';
    begin += strips_before || keeps_before;
    size_t end = end_of_tag(source, begin, close);
    at = std::min(end + 2, source.size());
    const bool strips_after = end > begin && source[end - 1] == '-',
               keeps_after = end > begin && source[end - 1] == '+';
    end -= strips_after || (keeps_after && kind != '{');
    if (strips_before)
      strip_end(text);
    else if (kind != '{' && !keeps_before && (line_begins || text.find('\n') != text.npos))
      strip_line(text);
    if (!text.empty()) pieces.push_back({Fragment::Kind::kText, std::move(text), {}});
    text.clear();
    if (kind != '#')
      pieces.push_back({kind == '{' ? Fragment::Kind::kOutput : Fragment::Kind::kBlock, "",
                        tokens_of(source.substr(begin, end - begin))});
    if (strips_after)
      at = std::min(source.find_first_not_of(" \t\n\r\v\f", at), source.size());
    else if (kind != '{' && !keeps_after && at < source.size() && source[at] == '\n')
      ++at;
    line_begins = source[at - 1] == '\n';
  }
  if (!text.empty()) pieces.push_back({Fragment::Kind::kText, std::move(text), {}});
  return pieces;
}

// Writes `.key` as `['key']`, and one name for the variable of a loop through the messages.
void name_alike(Tokens& tokens, std::string& variable) {
  Tokens alike;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool key = tokens[i].is(".") && !alike.empty() && i + 1 < tokens.size() &&
                     tokens[i + 1].kind == Token::Kind::kName &&
                     (alike.back().kind == Token::Kind::kName || alike.back().is("]") || alike.back().is(")"));
    if (!key) {
      alike.push_back(tokens[i]);
      continue;
    }
    alike.insert(alike.end(),
                 {{Token::Kind::kOther, "["}, {Token::Kind::kString, tokens[++i].text}, {Token::Kind::kOther, "]"}});
  }
  tokens = std::move(alike);
  const auto names = [&](size_t i, std::string_view name) {
    return tokens[i].kind == Token::Kind::kName && tokens[i].text == name;
  };
  if (tokens.size() == 4 && names(0, "for") && names(2, "in") && (names(3, "messages") || names(3, "loop_messages")))
    variable = tokens[1].text;
  for (size_t i = 0; i < tokens.size(); ++i)
    if (!variable.empty() && names(i, variable)) tokens[i].text = "message";
}

// Makes one string of those that are joined.
void join_strings(Tokens& tokens) {
  Tokens joined;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool more = tokens[i].joins() && !joined.empty() && joined.back().kind == Token::Kind::kString &&
                      i + 1 < tokens.size() && tokens[i + 1].kind == Token::Kind::kString &&
                      (i + 2 == tokens.size() || tokens[i + 2].joins() || tokens[i + 2].is(")")) &&
                      (joined.size() == 1 || joined[joined.size() - 2].joins() || joined[joined.size() - 2].is("("));
    if (more)
      joined.back().text += tokens[++i].text;
    else
      joined.push_back(tokens[i]);
  }
  tokens = std::move(joined);
}

// Makes an output of each term of one in which terms are joined.
std::vector<Tokens> terms(const Tokens& tokens) {
  constexpr auto kLooser = std::to_array<std::string_view>({"if", "else", "and", "or", "not", "in", "is"});
  std::vector<Tokens> all(1);
  int depth = 0;
  for (const Token& token : tokens) {
    depth += token.is("(") || token.is("[") || token.is("{");
    depth -= token.is(")") || token.is("]") || token.is("}");
    const bool looser =
        (token.kind == Token::Kind::kName && std::ranges::find(kLooser, token.text) != kLooser.end()) ||
        (token.kind == Token::Kind::kOther && (token.text.ends_with('=') || token.is("<") || token.is(">") ||
                                               token.is("*") || token.is("-") || token.is("/") || token.is("%")));
    if (depth == 0 && looser) return {tokens};
    if (depth == 0 && token.joins())
      all.emplace_back();
    else
      all.back().push_back(token);
  }
  return all;
}

std::string as_literal(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\'' || c == '\\')
      out += {'\\', c};
    else
      out += c;
  }
  return out + "'";
}

std::string shown(const Tokens& tokens) {
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string text = tokens[i].kind == Token::Kind::kString ? as_literal(tokens[i].text) : tokens[i].text;
    if (!out.empty() && is_word(out.back()) && is_word(text[0])) out += ' ';
    out += text;
  }
  return out;
}

class Form {
 public:
  void text(std::string_view text) { text_ += text; }

  void tag(std::string_view open, const Tokens& tokens, std::string_view close) {
    flush();
    form_ += std::string(open) + shown(tokens) + std::string(close);
  }

  std::string take() {
    flush();
    return std::move(form_);
  }

 private:
  void flush() {
    if (!text_.empty()) form_ += as_literal(text_);
    text_.clear();
  }

  std::string form_, text_;
};

}  // namespace

std::string jinja_normal_form(std::string_view source) {
  Form form;
  std::string variable;
  for (Fragment& piece : pieces_of(source)) {
    if (piece.kind == Fragment::Kind::kText) {
      form.text(piece.text);
      continue;
    }
    name_alike(piece.tokens, variable);
    join_strings(piece.tokens);
    if (piece.kind == Fragment::Kind::kBlock) {
      const bool marks_answer =
          piece.tokens.size() == 1 && (piece.tokens[0].text == "generation" || piece.tokens[0].text == "endgeneration");
      if (!marks_answer) form.tag("{%", piece.tokens, "%}");
      continue;
    }
    for (const Tokens& term : terms(piece.tokens)) {
      if (term.size() == 1 && term[0].kind == Token::Kind::kString)
        form.text(term[0].text);
      else
        form.tag("{{", term, "}}");
    }
  }
  return form.take();
}

}  // namespace mixtune
