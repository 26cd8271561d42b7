/* Steps in which a played server acts: rooms, events, answers, what it was asked. */
#pragma once
#include "tools/myelin-conform/stage.h"

/* Plays a STEP_DEED; `why_out` says what does not fit. */
struct err peer_step_play(struct stage *stage, const struct step *step,
                          struct slice *why_out) MUST_USE;
