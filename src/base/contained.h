// Files of a folder that came from somebody else: a link in it must not make one of the user's own files a part of it.
#pragma once

#include <string>

namespace mixtune {

// Whether FOLDER/NAME is a link to a file that lies neither in `folder` nor among the blobs of a hub cache
// (".../models--ORGANISATION--NAME/blobs/HASH"), where the links of downloaded folders lead. `folder` itself may be
// reached through links. False where there is no such file.
bool leads_out(const std::string& folder, const std::string& name);

// FOLDER/NAME. Throws UserError where it leads out.
std::string path_within(const std::string& folder, const std::string& name);

}  // namespace mixtune
