/* One of each thing that a user has outside of rooms: keys, backups, messages, pushers, media. */
#pragma once
#include "tests/support/house.h"

/* `guest` gets them all; `other` sends the messages and is signed. The guest has announced a file
 * (house_announced) and uploaded another (house_uploaded). */
void house_private_rows(struct house *house, const struct guest *guest, const struct guest *other);
extern const struct slice house_announced, house_uploaded;
