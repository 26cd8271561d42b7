/* Parts of a file and validators. Spec: none of its own; RFC 9110, sections 8.8.3, 13.1.2, 14. */
#include "homeserver/media/media.h"

/* One position of a range; false when it is no number that a file may have. */
static bool read_position(struct slice text, int64_t *value_out)
{
    uint64_t value = 0;
    bool good = text.len > 0 && slice_parse_u64(text, &value) && value <= INT64_MAX;
    *value_out = (int64_t)value;
    return good;
}

/* "-n": the last n bytes. */
static enum media_range read_suffix(struct slice text, int64_t bytes, struct media_part *part_out)
{
    int64_t wanted = 0;
    if (!read_position(text, &wanted)) {
        return MEDIA_RANGE_WHOLE;
    }
    part_out->bytes = wanted < bytes ? wanted : bytes;
    part_out->offset = bytes - part_out->bytes;
    return part_out->bytes > 0 ? MEDIA_RANGE_PART : MEDIA_RANGE_OUTSIDE;
}

enum media_range media_range_parse(struct slice header, int64_t bytes, struct media_part *part_out)
{
    struct slice unit;
    struct slice first;
    int64_t from = 0;
    int64_t last = bytes - 1;
    struct slice range = slice_trim(slice_cut(slice_trim(header), '=', &unit));
    struct slice end = slice_cut(range, '-', &first);
    *part_out = (struct media_part){0, bytes};
    /* What is malformed, of another unit or more than one part may be ignored (14.2). */
    if (!slice_eq_nocase(unit, LIT("bytes")) || !end.ptr) {
        return MEDIA_RANGE_WHOLE;
    }
    if (first.len == 0) {
        return read_suffix(end, bytes, part_out);
    }
    if (!read_position(first, &from) || (end.len > 0 && !read_position(end, &last)) ||
        (end.len > 0 && last < from)) {
        return MEDIA_RANGE_WHOLE;
    }
    if (from >= bytes) {
        return MEDIA_RANGE_OUTSIDE;
    }
    last = last < bytes ? last : bytes - 1;
    *part_out = (struct media_part){from, last - from + 1};
    return MEDIA_RANGE_PART;
}

bool media_etag_matches(struct slice if_none_match, struct slice etag)
{
    struct slice rest = if_none_match;
    while (rest.ptr) {
        struct slice one;
        rest = slice_cut(rest, ',', &one);
        one = slice_trim(one);
        if (slice_has_prefix(one, LIT("W/"))) { /* 13.1.2: the weak comparison */
            one = slice_from(one, 2);
        }
        if (slice_eq(one, LIT("*")) || slice_eq(one, etag)) {
            return true;
        }
    }
    return false;
}
