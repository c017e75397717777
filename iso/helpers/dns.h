/*
 * As much of DNS messages (RFC 1035, 4.1) as names.c reads: the header and one question. Every length is checked before it is used;
 * a compression pointer is never followed: a question has none, and nothing behind it is read but the head of an OPT record (RFC 6891).
 */
#ifndef WHERRY_DNS_H
#define WHERRY_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DNS_HEADER 12
#define DNS_NAME 255
/* The largest message that this file makes: header, question, one address, OPT. */
#define DNS_OURS (DNS_HEADER + DNS_NAME + 4 + 16 + 11)

enum { DNS_A = 1, DNS_OPT = 41, DNS_ANY = 255, DNS_IN = 1 };
enum { DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NOTIMP = 4 };

struct dns_question {
    size_t end; /* of the question in the message; the name begins at DNS_HEADER */
    uint16_t type, class;
    bool edns; /* an OPT record follows */
};

static inline uint16_t dns_16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline void dns_put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline uint8_t dns_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

/* Reads the one question of a message; false when there is not exactly one, or it is not whole. */
static inline bool dns_read(const uint8_t *message, size_t size, struct dns_question *question)
{
    if (size < DNS_HEADER || dns_16(message + 4) != 1)
        return false;
    size_t at = DNS_HEADER;
    for (;;) {
        if (at >= size)
            return false;
        size_t label = message[at];
        if (label > 63) /* a pointer, or a kind of label that nobody uses */
            return false;
        at += 1 + label;
        if (at - DNS_HEADER > DNS_NAME)
            return false;
        if (label == 0)
            break;
    }
    if (at > size || size - at < 4)
        return false;
    question->type = dns_16(message + at);
    question->class = dns_16(message + at + 2);
    at += 4;
    question->end = at;
    question->edns = dns_16(message + 6) == 0 && dns_16(message + 8) == 0 && dns_16(message + 10) > 0 && size - at >= 11 &&
                     message[at] == 0 && dns_16(message + at + 1) == DNS_OPT;
    return true;
}

/* Whether two pieces of messages are the same name, or question; length octets are below 'A'. */
static inline bool dns_same(const uint8_t *one, const uint8_t *other, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (dns_lower(one[i]) != dns_lower(other[i]))
            return false;
    return true;
}

/* "a.bc" as labels; its size with the last, empty one, 0 when it is no name. */
static inline size_t dns_name(const char *text, uint8_t name[DNS_NAME])
{
    size_t at = 0;
    for (;;) {
        size_t label = strcspn(text, ".");
        if (label == 0 || label > 63 || at + label + 2 > DNS_NAME)
            return 0;
        name[at] = (uint8_t)label;
        memcpy(name + at + 1, text, label);
        at += 1 + label;
        text += label;
        if (*text == '\0')
            break;
        text++;
    }
    name[at++] = 0;
    return at;
}

/* The head of an answer of ours, with the question where it could be read; its size. */
static inline size_t dns_head(const uint8_t *query, const struct dns_question *question, unsigned code, uint8_t answer[DNS_OURS])
{
    size_t size = question != NULL ? question->end : DNS_HEADER;
    memcpy(answer, query, size);
    answer[2] = (uint8_t)(0x80 | (query[2] & 0x79)); /* an answer; opcode and "recursion desired" as they came */
    answer[3] = (uint8_t)(0x80 | code);              /* recursion is available */
    dns_put16(answer + 4, question != NULL);
    memset(answer + 6, 0, 6);
    return size;
}

/* The answer to a question for a name of ours: the address, or, to a question for anything else, that there is none. Its size. */
static inline size_t dns_ours(const uint8_t *query, const struct dns_question *question, const uint8_t address[4],
                              uint8_t answer[DNS_OURS])
{
    static const uint8_t record[12] = {0xc0, DNS_HEADER, 0, DNS_A, 0, DNS_IN, 0, 0, 0, 60, 0, 4};
    static const uint8_t opt[11] = {0, 0, DNS_OPT, 0x04, 0xd0}; /* 1232 bytes, as RFC 9715 has it */
    size_t size = dns_head(query, question, 0, answer);
    answer[2] |= 0x04; /* with authority */
    if (question->type == DNS_A || question->type == DNS_ANY) {
        memcpy(answer + size, record, sizeof record);
        memcpy(answer + size + sizeof record, address, 4);
        size += sizeof record + 4;
        dns_put16(answer + 6, 1);
    }
    if (question->edns) {
        memcpy(answer + size, opt, sizeof opt);
        size += sizeof opt;
        dns_put16(answer + 10, 1);
    }
    return size;
}

/* Whether a message can be the answer to the query that was sent: same id, same question. An error may come without a question. */
static inline bool dns_answers(const uint8_t *answer, size_t size, const uint8_t *query, const struct dns_question *question)
{
    struct dns_question theirs;
    if (size < DNS_HEADER || dns_16(answer) != dns_16(query) || !(answer[2] & 0x80) || (answer[2] & 0x78) != (query[2] & 0x78))
        return false;
    if (dns_16(answer + 4) == 0)
        return (answer[3] & 0x0f) != 0;
    return dns_read(answer, size, &theirs) && theirs.end == question->end && theirs.type == question->type &&
           theirs.class == question->class &&
           dns_same(answer + DNS_HEADER, query + DNS_HEADER, question->end - 4 - DNS_HEADER);
}

#endif
