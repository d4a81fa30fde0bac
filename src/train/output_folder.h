// The folder that a run writes into.
#pragma once

#include "base/error.h"

// Makes the folder, with the folders it is in; one that is there is fine.
pd_status pd_output_folder_make(const char *path, pd_error *err);
// Makes the folder likewise, and takes it for this process until *descriptor is closed, or
// the process ends in whatever way. PD_ERR_IO when it cannot be written to, or another process has it.
pd_status pd_output_folder_open(const char *path, int *descriptor, pd_error *err);
