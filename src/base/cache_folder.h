// The folder in which mixtune keeps what later runs need not find out or make again.
#pragma once

#include <string>

namespace mixtune {

// $XDG_CACHE_HOME/mixtune, else $HOME/.cache/mixtune, else "" for none. The folder need not exist.
std::string cache_folder();

}  // namespace mixtune
