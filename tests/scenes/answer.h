// Answers questions of the data set from a picture's caption alone: an independent way to every answer.
#pragma once

enum { ANSWER_SIZE = 64 };

// Writes the one answer that the caption allows; "?" where it allows none or several, or where the question
// is of no known form.
void answer_from_caption(const char *caption, const char *question, char answer[ANSWER_SIZE]);
