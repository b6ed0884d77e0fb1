#!/usr/bin/env python3
"""Writes tests/vectors/{pricing,proration,allocation}.json.

Every expected value is an arithmetic expression written beside its case by hand (or, in the
sweeps, a closed formula unlike the tier walk of the Rust oracle), computed with fractions.
No pricing document is ever interpreted here. `rounded`, where given by hand, is asserted.
`"reading": true` marks a case on which the rule texts leave room and the engine's reading was kept.
"""
import json, os
from fractions import Fraction
from math import ceil, floor

HERE = os.path.dirname(os.path.abspath(__file__))
ERR = object()
CASES = []


def F(text):
    return Fraction(text)


def exact_text(x):
    below, places = x.denominator, 0
    while below % 2 == 0 or below % 5 == 0:
        below //= 10 if below % 10 == 0 else 2 if below % 2 == 0 else 5
        places += 1
    if below != 1:
        return f"{x.numerator}/{x.denominator}"
    if places == 0:
        return str(x.numerator)
    return fixed_text(x, places)


def fixed_text(x, scale):
    units = x * 10**scale
    assert units.denominator == 1
    digits = str(abs(units.numerator)).rjust(scale + 1, "0")
    sign = "-" if units < 0 else ""
    return sign + (digits if scale == 0 else digits[:-scale] + "." + digits[-scale:])


def rounded(x, scale, mode):
    units = abs(x) * 10**scale
    twice = 2 * units
    if twice.denominator == 1 and twice.numerator % 2 == 1:  # a tie
        low = floor(units)
        n = low + 1 if mode == "half_up" else low + low % 2
    else:
        n = floor(units + Fraction(1, 2))
    return Fraction(n if x >= 0 else -n, 10**scale)


def case(name, pricing, quantity, want, source, hand=None, dims=None, events=None, amounts=None,
         minor=2, mode=None, percent_off=None, reading=False):
    assert all(c["name"] != name for c in CASES), name
    c = {"name": name, "pricing": pricing}
    if amounts is not None:
        c["amounts"] = amounts
    else:
        c["quantity"] = quantity
    if dims is not None:
        c["dimensions"] = dims
    if events is not None:
        c["events"] = events
    if percent_off is not None:
        c["percent_off"] = percent_off
    if want is ERR:
        c["error"] = True
    else:
        want = F(want) if isinstance(want, (str, int)) else want
        c["exact"] = exact_text(want)
        c["minor_units"] = minor
        if mode:
            c["mode"] = mode
        c["rounded"] = fixed_text(rounded(want, minor, mode or "half_up"), minor)
        if hand is not None:
            assert c["rounded"] == hand, (name, c["rounded"], hand)
    if reading:
        c["reading"] = True
    c["source"] = source
    CASES.append(c)


def flat(amount, **more): return {"model": "flat", "amount": amount, **more}
def unit(price, **more): return {"model": "per_unit", "unit_price": price, **more}
def t(up_to=None, **more): return ({"up_to": up_to} if up_to else {}) | more
def tiered(model, *tiers, **more): return {"model": model, "tiers": list(tiers), **more}
def grad(*tiers, **more): return tiered("graduated", *tiers, **more)
def vol(*tiers, **more): return tiered("volume", *tiers, **more)
def stair(*tiers, **more): return tiered("stairstep", *tiers, **more)
def gpct(*tiers, **more): return tiered("graduated_percentage", *tiers, **more)
def pack(size, amount, **more): return {"model": "package", "package_size": size, "amount": amount, **more}
def pct(**more): return {"model": "percentage", **more}
def matrix(dimensions, rows, **more): return {"model": "matrix", "dimensions": dimensions, "rows": rows, **more}
def row(match, price=None, **more): return {"match": match} | ({"unit_price": price} if price else {}) | more


W = "rules 1 worked table"

# ------------------------------------------------------------------ rules 1, worked
ABC = [t("1000", unit_price="0.10"), t("10000", unit_price="0.05"), t(unit_price="0.01")]
case("worked graduated 1000", grad(*ABC), "1000", "100", W, "100.00")
case("worked graduated 1001", grad(*ABC), "1001", "100.05", W, "100.05")
case("worked graduated 15000", grad(*ABC), "15000", 100 + 450 + 50, W, "600.00")
case("worked volume 1000", vol(*ABC), "1000", "100", W, "100.00")
case("worked volume 1001", vol(*ABC), "1001", "50.05", W, "50.05")
case("worked volume 15000", vol(*ABC), "15000", "150", W, "150.00")
FEE = [t("100", unit_price="1", flat_fee="10"), t("200", unit_price="0.5", flat_fee="5"), t(unit_price="0.1")]
case("worked graduated flat 101", grad(*FEE), "101", F("110") + F("0.5") + 5, W, "115.50")
case("worked graduated flat 250", grad(*FEE), "250", F("110") + 55 + 50 * F("0.1"), W, "170.00")
MR = ["model", "region"]
M4 = matrix(MR, [row({"model": "gpt-4"}, "0.03"), row({"model": "gpt-4", "region": "eu"}, "0.033"),
                 row({"region": "eu"}, "0.02"), row({}, "0.01")])
M3 = matrix(MR, [row({"model": "gpt-4"}, "0.03"), row({"region": "eu"}, "0.02"), row({}, "0.01")])
for m, r, price in [("gpt-4", "eu", "0.033"), ("gpt-4", "us", "0.03"), ("other", "eu", "0.02"), ("other", "us", "0.01")]:
    case(f"worked matrix {m}/{r}", M4, "1", price, W, dims={"model": m, "region": r}, minor=3)
case("worked matrix tie, priority model > region", M3, "1", "0.03", W, dims={"model": "gpt-4", "region": "eu"})
STATES = matrix(["state"], [row({"state": "CA"}, "10", minimum="100", maximum="200"),
                            row({"state": "NY"}, "12", minimum="120", maximum="240")])
case("worked charge minimum 8 in CA", STATES, "8", "100", W, "100.00", dims={"state": "CA"})
case("worked charge maximum 25 in NY", STATES, "25", "240", W, "240.00", dims={"state": "NY"})
case("worked charge minimum exactly 10 in NY", STATES, "10", "120", W, "120.00", dims={"state": "NY"})
MIL = pack("1000000", "1.25")
case("worked package 10", MIL, "10", "1.25", W, "1.25")
case("worked package 1500000", MIL, "1500000", "2.50", W, "2.50")
case("worked package 1500001 with 500000 free", pack("1000000", "1.25", free_units="500000"), "1500001", "2.50", W, "2.50")
STEPS = stair(t("100", amount="50"), t("500", amount="200"), t(amount="700"))
case("worked stairstep 100", STEPS, "100", 50, W, "50.00")
case("worked stairstep 101", STEPS, "101", 200, W, "200.00")
case("worked stairstep 501", STEPS, "501", 700, W, "700.00")
TXN = pct(rate="0.029", fixed="0.30", per_event_minimum="0.50", per_event_maximum="10")
case("worked percentage per event 5, 100, 500", TXN, None, F("0.50") + F("3.20") + 10, W, "13.70", amounts=["5", "100", "500"])
case("worked percentage per event 5 alone", TXN, None, "0.50", W, "0.50", amounts=["5"])
case("worked percentage per event 100 alone", TXN, None, "3.20", W, "3.20", amounts=["100"])
case("worked percentage per event 500 alone", TXN, None, "10", W, "10.00", amounts=["500"])
GP = gpct(t("1000", rate="0.01", flat_fee="200"), t("10000", rate="0.02", flat_fee="300"))
case("worked graduated percentage 500", GP, "500", 205, W, "205.00")
case("worked graduated percentage 1050 (then 550)", GP, "1050", 205 + 306, W, "511.00")
case("worked graduated percentage 5050 (then 4000)", GP, "5050", 591, W, "591.00")
MINI = unit("0.10", free_units="500", minimum="100")
case("worked minimum after 10% discount", MINI, "1400", 100, W, "100.00", percent_off="10")
case("worked minimum before discount: max(90, 100), then x 0.9 outside", MINI, "1400", 100, W, "100.00")
assert 100 * F("0.9") == 90
case("worked same without minimum and discount", unit("0.10", free_units="500"), "1400", 90, W, "90.00")
case("worked ramp year 1", flat("100000"), "1", 100000, W, "100000.00")
case("worked ramp year 2", {"model": "dynamic", "amount_property": "cost", "multiplier": "1.07"}, "100000", 107000, W, "107000.00")
case("worked ramp year 3", {"model": "dynamic", "amount_property": "cost", "multiplier": "1.07"}, "107000", 114490, W, "114490.00")
case("worked ramp total", unit("100000"), "3.2149", 321490, W, "321490.00")
case("worked price change usage_time v1 part", unit("0.010"), "10000", 100, W, "100.00")
case("worked price change usage_time v2 part", unit("0.008"), "12000", 96, W, "96.00")
case("worked price change period_start", unit("0.010"), "22000", 220, W, "220.00")
V1 = grad(t("10000", unit_price="0.010"), t(unit_price="0.006"))
V2 = grad(t("10000", unit_price="0.008"), t(unit_price="0.005"))
case("worked tier continuity: v1 at 8000", V1, "8000", 80, W, "80.00")
case("worked tier continuity: v2 at 14000", V2, "14000", 100, W, "100.00")
case("worked tier continuity: v2 at 8000", V2, "8000", 64, W, "64.00")
case("worked tier continuity: reset, v2 at 6000", V2, "6000", 48, W, "48.00")
case("worked tier continuity: period_start, v1 at 14000", V1, "14000", 124, W, "124.00")
assert 80 + 100 - 64 == 116 and 80 + 48 == 128
case("worked 0.0000025 x 1234567", unit("0.0000025"), "1234567", "3.0864175", W, "3.09")
case("worked 1000 events x 400 tokens, the sum", unit("0.0000025"), "400000", "1.00", W, "1.00", events=1000)
case("worked 400 tokens, one event alone", unit("0.0000025"), "400", "0.001", W, "0.00")
for text, scale, up, even in [("0.125", 2, "0.13", "0.12"), ("2.345", 2, "2.35", "2.34"), ("2.355", 2, "2.36", "2.36"),
                              ("1234.5", 0, "1235", "1234"), ("1.2345", 3, "1.235", "1.234")]:
    case(f"worked rounding {text} half_up", flat(text), "1", text, W, up, minor=scale, mode="half_up")
    case(f"worked rounding {text} half_even", flat(text), "1", text, W, even, minor=scale, mode="half_even")
    case(f"worked rounding -{text} half_up (rules 0.3 mirror)", unit(text), "-1", "-" + text, W, "-" + up, minor=scale, mode="half_up")
    case(f"worked rounding -{text} half_even (rules 0.3 mirror)", unit(text), "-1", "-" + text, W, "-" + even, minor=scale, mode="half_even")
case("worked line 33.335", flat("33.335"), "1", "33.335", W, "33.34")
case("worked invoice level sum 100.005", unit("33.335"), "3", "100.005", W, "100.01")
case("rules 0.4 multiply before dividing: 4.35 x 1 per 30", unit("4.35", per=30), "1", F("0.145"), "rules 0.4", "0.15")
case("rules 1 per-unit: 0.15 per 3600, one second", unit("0.15", per=3600), "1", F("0.15") / 3600, "rules 1 per-unit", "0.00")

# ------------------------------------------------------------------ rules 10
R = "rules 10.1"
case("twilio 1234567 segments", unit("0.0083"), "1234567", "10246.9061", R, "10246.91")
case("twilio 3 segments", unit("0.0083"), "3", "0.0249", R, "0.02")
case("twilio failed messages", unit("0.001"), "7", "0.007", R, "0.01")
R = "rules 10.2"
case("assemblyai session 8263 s at 0.15", unit("0.15", per=3600), "8263", F("0.15") * 8263 / 3600, R, "0.34")
case("assemblyai session 8263 s at 0.45", unit("0.45", per=3600), "8263", "1.032875", R, "1.03")
case("assemblyai month at 0.15", unit("0.15", per=3600), "4567890", "190.32875", R, "190.33")
case("assemblyai month at 0.45", unit("0.45", per=3600), "1234567", "154.320875", R, "154.32")
assert F("190.33") + F("154.32") == F("344.65")
case("assemblyai unclosed session 10800 s", unit("0.15", per=3600), "10800", "0.45", R, "0.45")
R = "rules 10.3"
case("datadog base 10 hosts 720 h", unit("15", per=720), "7200", 150, R, "150.00")
case("datadog spike 180 host-h", unit("15", per=720), "180", "3.75", R, "3.75")
case("datadog 720 h month", unit("15", per=720), "7380", "153.75", R, "153.75")
case("datadog 720 h month at 23, base", unit("23", per=720), "7200", 230, R, "230.00")
case("datadog 720 h month at 23, spike", unit("23", per=720), "180", "5.75", R, "5.75")
case("datadog 720 h month at 23", unit("23", per=720), "7380", "235.75", R, "235.75")
case("datadog 744 h month, spike", unit("15", per=744), "180", F(180 * 15) / 744, R, "3.63")
case("datadog 744 h month", unit("15", per=744), "7620", F(7620 * 15) / 744, R, "153.63")
case("datadog real rule, 2 h spike: 10 hosts", unit("15"), "10", 150, R, "150.00")
case("datadog real rule, 8 h spike: 100 hosts", unit("15"), "100", 1500, R, "1500.00")
R = "rules 10.4"


def card(gpt4, gpt35):
    return matrix(["model"], [row({"model": "gpt-4"}, gpt4), row({"model": "gpt-3.5"}, gpt35)], per=1000)


for who, a, b, xa, ra, xb, rb, total in [
        ("startup", "0.03", "0.002", "37.03701", "37.04", "19.753086", "19.75", "56.79"),
        ("acme", "0.02", "0.002", "24.69134", "24.69", "19.753086", "19.75", "44.44"),
        ("mega", "0.015", "0.001", "18.518505", "18.52", "9.876543", "9.88", "28.40")]:
    case(f"rate card {who} gpt-4", card(a, b), "1234567", xa, R, ra, dims={"model": "gpt-4"})
    case(f"rate card {who} gpt-3.5", card(a, b), "9876543", xb, R, rb, dims={"model": "gpt-3.5"})
    assert F(ra) + F(rb) == F(total)
case("rate card unknown model is unrated", card("0.03", "0.002"), "1", ERR, "rules 1 matrix match", dims={"model": "gpt-5"})
R = "rules 10.5"
for m, q, want in [("gpt-4", "1200000000", 18000), ("gpt-3.5", "2000000000", 2000), ("gpt-4", "1800000000", 27000),
                   ("gpt-3.5", "3000000000", 3000), ("gpt-4", "2100000000", 31500), ("gpt-3.5", "4500000000", 4500),
                   ("gpt-4", "2400000000", 36000), ("gpt-3.5", "5500000000", 5500)]:
    case(f"acme 50% off {m} {q}", card("0.03", "0.002"), q, want, R, f"{want}.00", dims={"model": m}, percent_off="50")

# ------------------------------------------------------------------ definitions
D = "definitions"
REQ = [t("1000", unit_price="0"), t("5000", unit_price="0.001"), t(unit_price="0.0005")]
case("demo requests 9395, zero tier", grad(*REQ), "9395", F("4") + 4395 * F("0.0005"), D + " 2, 5", "6.20")
case("demo requests 28185 in one quarter", grad(*REQ), "28185", F("4") + 23185 * F("0.0005"), D + " 5", "15.59")
case("demo requests 9395, free units instead of the zero tier",
     grad(t("5000", unit_price="0.001"), t(unit_price="0.0005"), free_units="1000"), "9395",
     5 + 3395 * F("0.0005"), D + " 4", "6.70")
case("D3 line tokens gpt-4", card("0.02", "0.002"), "8779295", "175.5859", D + " D3", "175.59", dims={"model": "gpt-4"})

# ------------------------------------------------------------------ flat
S = "flat"
case("flat at zero quantity", flat("149.00"), "0", 149, S)
case("flat ignores a big quantity", flat("149.00"), "9999999999999999999999999999", 149, S)
case("flat ignores a negative quantity", flat("149.00"), "-3", 149, S, reading=True)
case("flat with free units", flat("149.00", free_units="10"), "3", 149, S, reading=True)
case("flat below its minimum", flat("5", minimum="7.5"), "1", "7.5", S)
case("flat above its maximum", flat("5", maximum="4.999"), "1", "4.999", S)
case("flat negative amount (a recurring credit)", flat("-10.005"), "1", "-10.005", "flat, half tie negative", "-10.01")
case("flat 12 decimals", flat("0.005000000001"), "1", "0.005000000001", S, "0.01")
case("flat 12 decimals just below the tie", flat("0.004999999999"), "1", "0.004999999999", S, "0.00")
case("flat half_even just above the tie", flat("0.125000000001"), "1", "0.125000000001", S, "0.13", mode="half_even")
case("flat half_even just below the tie", flat("0.134999999999"), "1", "0.134999999999", S, "0.13", mode="half_even")

# ------------------------------------------------------------------ per unit
S = "per unit"
case("per_unit zero", unit("0.10"), "0", 0, S, "0.00")
case("per_unit fractional quantity", unit("0.10"), "0.5", "0.05", S)
case("per_unit negative mirrors", unit("0.0083"), "-1234567", "-10246.9061", "definitions 8 mirror", "-10246.91")
case("per_unit negative tie half_up", unit("0.005"), "-1", "-0.005", "rules 0.3", "-0.01")
case("per_unit negative tie half_even gives plain zero", unit("0.005"), "-1", "-0.005", "rules 0.3", "0.00", mode="half_even")
case("per_unit positive tie half_even to zero", unit("0.005"), "1", "0.005", "rules 0.2", "0.00", mode="half_even")
case("per_unit positive tie half_even to two", unit("0.015"), "1", "0.015", "rules 0.2", "0.02", mode="half_even")
case("per_unit -0.004 rounds to plain zero", unit("0.004"), "-1", "-0.004", "rules 0.3", "0.00")
case("per_unit JPY tie half_up", unit("0.5"), "5", "2.5", "minor units 0", "3", minor=0)
case("per_unit JPY tie half_even", unit("0.5"), "5", "2.5", "minor units 0", "2", minor=0, mode="half_even")
case("per_unit JPY negative tie half_up", unit("0.5"), "-5", "-2.5", "minor units 0", "-3", minor=0)
case("per_unit JPY negative tie half_even", unit("0.5"), "-7", "-3.5", "minor units 0", "-4", minor=0, mode="half_even")
case("per_unit KWD tie half_up", unit("0.0005"), "3", "0.0015", "minor units 3", "0.002", minor=3)
case("per_unit KWD tie half_even", unit("0.0005"), "5", "0.0025", "minor units 3", "0.002", minor=3, mode="half_even")
case("per_unit KWD negative tie half_up", unit("0.0005"), "-5", "-0.0025", "minor units 3", "-0.003", minor=3)
case("per_unit CLF 4 minor units", unit("0.00005"), "3", "0.00015", "minor units 4", "0.0002", minor=4)
case("per_unit 3600 non-terminating, 7 s", unit("0.15", per=3600), "7", F("1.05") / 3600, S)
case("per_unit 3600, 120 s is a tie half_up", unit("0.15", per=3600), "120", "0.005", S, "0.01")
case("per_unit 3600, 120 s is a tie half_even", unit("0.15", per=3600), "120", "0.005", S, "0.00", mode="half_even")
case("per_unit 3600, a microsecond less than the tie", unit("0.15", per=3600), "119.999999", F("0.15") * F("119.999999") / 3600, S, "0.00")
case("per_unit 3600, a microsecond more than the tie", unit("0.15", per=3600), "120.000001", F("0.15") * F("120.000001") / 3600, S, "0.01", mode="half_even")
case("per_unit 3600, -120 s", unit("0.15", per=3600), "-120", "-0.005", S, "-0.01")
case("per_unit per 3, one unit", unit("1", per=3), "1", F("1/3"), S, "0.33")
case("per_unit per 3, two units", unit("1", per=3), "2", F("2/3"), S, "0.67")
case("per_unit per 3, 1.5 units", unit("0.01", per=3), "1.5", "0.005", S, "0.01")
case("per_unit per 7, prime", unit("0.000000000001", per=7), "1", F("0.000000000001") / 7, S, "0.00")
case("per_unit per as text", unit("0.15", per="3600"), "3600", "0.15", S)
case("per_unit decimal per", unit("0.15", per="0.5"), "1", "0.30", S)
case("per_unit per zero", unit("0.15", per=0), "1", ERR, S)
case("per_unit per negative", unit("0.15", per=-1), "1", ERR, S)
case("per_unit 12-decimal price", unit("0.000000000001"), "5000000000", "0.005", S, "0.01")
case("per_unit 12-decimal price, one below the tie", unit("0.000000000001"), "4999999999", "0.004999999999", S, "0.00")
case("per_unit exponent price", unit("2.5e-6"), "1234567", "3.0864175", S, "3.09", reading=True)
BIG = "9999999999999999999999999999"
case("per_unit 28-digit quantity x 12-decimal price", unit("0.000000000001"), BIG, F(BIG) / 10**12, "28 digits", "10000000000000000.00")
case("per_unit 28-digit quantity x 1", unit("1"), BIG, F(BIG), "28 digits")
case("per_unit 28-digit quantity x 1 per 1000", unit("1", per=1000), BIG, F(BIG) / 1000, "28 digits")
case("per_unit 28-digit quantity x 0.03 per 1000", unit("0.03", per=1000), BIG, F(BIG) * 3 / 100000, "28 digits")
case("per_unit 28-digit quantity with 12 decimals", unit("0.1"), "1234567890123456.123456789012", F("123456789012345.6123456789012"), "28 digits")
case("per_unit 28-digit quantity with 12 decimals, 12-decimal price", unit("0.999999999999"), "1234567890123456.123456789012",
     F("1234567890123456.123456789012") * F("0.999999999999"), "28 digits, product has 40 digits")
case("per_unit 28-digit negative", unit("0.000000000001"), "-" + BIG, -F(BIG) / 10**12, "28 digits", "-10000000000000000.00")
case("per_unit free units larger than quantity", unit("0.10", free_units="1000"), "999.999", 0, "free units", "0.00")
case("per_unit free units exactly", unit("0.10", free_units="1000"), "1000", 0, "free units")
case("per_unit free units, a hair more", unit("0.10", free_units="1000"), "1000.000000000001", F("0.1") / 10**12, "free units")
case("per_unit fractional free units", unit("0.10", free_units="0.5"), "1", "0.05", "free units")
case("per_unit negative with free units refused", unit("0.10", free_units="500"), "-1400", ERR, "definitions 8, 29: not linear", reading=True)
case("per_unit negative inside free units refused", unit("0.10", free_units="500"), "-400", ERR, "definitions 8, 29: not linear", reading=True)
case("per_unit negative, free units of 0 are none", unit("0.10", free_units="0"), "-1400", -140, "definitions 8 mirror")
case("per_unit zero with free units", unit("0.10", free_units="500"), "0", 0, "free units")
case("per_unit negative minimum refused", unit("0.10", minimum="-1"), "5", ERR, "minimum", reading=True)
case("per_unit negative free units refused", unit("0.10", free_units="-1"), "5", ERR, "free units", reading=True)
case("per_unit minimum at zero quantity", unit("0.10", minimum="100"), "0", 100, "minimum")
case("per_unit minimum exactly reached", unit("0.10", minimum="100"), "1000", 100, "minimum")
case("per_unit just above minimum", unit("0.10", minimum="100"), "1000.01", "100.001", "minimum", "100.00")
case("per_unit maximum exactly reached", unit("0.10", maximum="100"), "1000", 100, "maximum")
case("per_unit above maximum", unit("0.10", maximum="100"), "1000.01", 100, "maximum")
case("per_unit minimum = maximum", unit("0.10", minimum="100", maximum="100"), "5", 100, "minimum")
case("per_unit minimum with three decimals", unit("0.10", minimum="99.995"), "5", "99.995", "minimum", "100.00")
case("per_unit min > max refused", unit("0.10", minimum="100.01", maximum="100"), "5", ERR, "rules 1 min > max is invalid")
case("per_unit min > max refused although between", unit("0.10", minimum="3", maximum="1"), "20", ERR, "rules 1 min > max is invalid")
case("per_unit negative quantity and minimum", unit("0.10", minimum="100"), "-50", 100, "definitions 8: true-up = minimum - posted", reading=True)
case("per_unit negative quantity and maximum", unit("0.10", maximum="100"), "-5000", -500, "definitions 8: cap compares signed", reading=True)
case("per_unit free units, then minimum", unit("0.10", free_units="500", minimum="100"), "600", 100, "rules 1 order of adjustments")
case("per_unit zero price", unit("0"), "123456789", 0, S)

# ------------------------------------------------------------------ graduated
S = "graduated boundary"


def graduated_integral(q, prices, bounds):
    """Sum of price steps: everybody pays the first price, plus (p[k] - p[k-1]) on what lies above bound k."""
    total = q * prices[0]
    for k, bound in enumerate(bounds):
        total += max(Fraction(0), q - bound) * (prices[k + 1] - prices[k])
    return total


for q in ["0", "0.000001", "0.5", "1", "999", "999.5", "999.999999999999", "1000.000000000001", "1000.5", "1002",
          "9999", "9999.5", "10000", "10000.000001", "10000.5", "10001", "1234567.891"]:
    case(f"graduated sweep {q}", grad(*ABC), q, graduated_integral(F(q), [F("0.10"), F("0.05"), F("0.01")], [1000, 10000]), S)
    price = F("0.10") if F(q) <= 1000 else F("0.05") if F(q) <= 10000 else F("0.01")
    case(f"volume sweep {q}", vol(*ABC), q, F(q) * price, "volume boundary")
case("graduated negative refused", grad(*ABC), "-1", ERR, "definitions 8")
case("graduated tiny negative refused", grad(*ABC), "-0.000001", ERR, "definitions 8")
case("graduated negative refused despite free units", grad(*ABC, free_units="10"), "-1", ERR, "definitions 8")
case("graduated negative refused despite minimum", grad(*ABC, minimum="10"), "-1", ERR, "definitions 8")
CLOSED = [t("10", unit_price="2"), t("20", unit_price="1")]
case("graduated closed end reached", grad(*CLOSED), "20", 30, S)
case("graduated closed end passed", grad(*CLOSED), "20.000001", ERR, "definitions 8")
case("graduated closed end passed, not saved by maximum", grad(*CLOSED, maximum="5"), "21", ERR, "definitions 8")
case("graduated closed end with free units counts the rest", grad(*CLOSED, free_units="5"), "25", 30, "free units, then tiers")
case("graduated closed end with free units passed", grad(*CLOSED, free_units="5"), "25.5", ERR, "free units, then tiers")
case("graduated single open tier", grad(t(unit_price="0.07")), "3", "0.21", S)
case("graduated up_to null is open", grad({"up_to": None, "unit_price": "0.07"}), "3", "0.21", S, reading=True)
case("graduated price may rise", grad(t("10", unit_price="1"), t(unit_price="3")), "12", 16, S)
case("graduated 28 digits", grad(*ABC), BIG, graduated_integral(F(BIG), [F("0.10"), F("0.05"), F("0.01")], [1000, 10000]), "28 digits")
case("graduated fractional bounds", grad(t("0.5", unit_price="10"), t("1.25", unit_price="4"), t(unit_price="1")), "2", 5 + 3 + F("0.75"), S)
case("graduated bounds not rising refused", grad(t("10", unit_price="1"), t("10", unit_price="2"), t(unit_price="3")), "1", ERR, "document")
case("graduated bounds falling refused", grad(t("10", unit_price="1"), t("5", unit_price="2")), "1", ERR, "document")
case("graduated open tier in the middle refused", grad(t(unit_price="1"), t("5", unit_price="2")), "1", ERR, "document")
case("graduated without tiers refused", grad(), "1", ERR, "document")
case("graduated negative price refused", grad(t(unit_price="-1")), "1", ERR, "document", reading=True)
case("graduated tier of nothing but a fee", grad(t("100", flat_fee="25"), t(unit_price="3")), "105", 25 + 15, "flat fee", reading=True)
case("graduated tier without a price refused", grad(t("100")), "1", ERR, "document")
case("graduated first up_to zero refused", grad(t("0", unit_price="1"), t(unit_price="2")), "1", ERR, "document", reading=True)
case("graduated per 1000", grad(t("1000", unit_price="3"), t(unit_price="2"), per=1000), "1001", 3 + F("0.002"), "per on tiers")
case("graduated per 3600 non-terminating", grad(t("3600", unit_price="0.15"), t(unit_price="0.10"), per=3600), "8263",
     F("0.15") + F("0.10") * 4663 / 3600, "per on tiers")
case("graduated per does not divide the flat fee", grad(t("10", unit_price="3", flat_fee="7"), per=1000), "10", F("7.03"), "per on tiers")
case("graduated free units shift the tiers", grad(*ABC, free_units="1000"), "2000", 100, "free units, then tiers")
case("graduated free units shift the tiers, 2001", grad(*ABC, free_units="1000"), "2001", "100.05", "free units, then tiers")
case("graduated free units larger than quantity", grad(*ABC, free_units="5000"), "4999", 0, "free units")

S = "flat fee at every boundary"
for q, want in [("0", 0), ("0.000001", F("10.000001")), ("1", 11), ("99.5", F("109.5")), ("100", 110), ("100.5", F("115.25")),
                ("100.000000000001", 115 + F("0.5") / 10**12), ("199.5", F("164.75")), ("200", 165), ("200.5", F("165.05")), ("201", F("165.1"))]:
    case(f"graduated flat fees {q}", grad(*FEE), q, want, S)
case("graduated flat at zero on", grad(*FEE, first_flat_at_zero=True), "0", 10, "first_flat_at_zero")
case("graduated flat at zero off", grad(*FEE, first_flat_at_zero=False), "0", 0, "first_flat_at_zero")
case("graduated flat at zero on, used: charged once", grad(*FEE, first_flat_at_zero=True), "1", 11, "first_flat_at_zero")
case("graduated flat at zero on, second fee untouched", grad(*FEE, first_flat_at_zero=True), "101", "115.5", "first_flat_at_zero")
case("graduated flat, free units cover all", grad(*FEE, free_units="50"), "50", 0, "free units, flat fee", reading=True)
case("graduated flat, free units cover all, at zero on", grad(*FEE, free_units="50", first_flat_at_zero=True), "50", 10, "first_flat_at_zero", reading=True)
case("graduated flat, free units stop at the bound", grad(*FEE, free_units="50"), "150", 110, "free units, flat fee")
case("graduated flat, free units one past the bound", grad(*FEE, free_units="50"), "151", "115.5", "free units, flat fee")
case("graduated flat fee only in the open tier", grad(t("10", unit_price="1"), t(unit_price="0", flat_fee="99")), "10", 10, S)
case("graduated flat fee only in the open tier, entered", grad(t("10", unit_price="1"), t(unit_price="0", flat_fee="99")), "10.01", 109, S)
case("graduated minimum above tiers", grad(*FEE, minimum="200"), "250", 200, "minimum")
case("graduated maximum below tiers", grad(*FEE, maximum="115.5"), "250", "115.5", "maximum")
for q, want in [("0", 0), ("1", 11), ("100", 110), ("100.5", F("50.25") + 5), ("101", F("50.5") + 5), ("200", 105), ("200.5", F("20.05")), ("201", F("20.1"))]:
    case(f"volume flat fees {q}", vol(*FEE), q, want, "volume: only the chosen tier's flat fee")
case("volume flat at zero on", vol(*FEE, first_flat_at_zero=True), "0", 10, "first_flat_at_zero")
case("volume flat at zero on, used", vol(*FEE, first_flat_at_zero=True), "101", "55.5", "first_flat_at_zero")
case("volume flat, free units cover all", vol(*FEE, free_units="101"), "101", 0, "free units, flat fee", reading=True)
case("volume flat, free units select the lower tier", vol(*FEE, free_units="1"), "101", 110, "free units, then tiers")

S = "volume"
case("volume cliff before", vol(t("100", unit_price="1"), t(unit_price="0.01")), "100", 100, S + " cliff")
case("volume cliff after", vol(t("100", unit_price="1"), t(unit_price="0.01")), "100.01", "1.0001", S + " cliff")
case("volume cliff held by minimum", vol(t("100", unit_price="1"), t(unit_price="0.01"), minimum="50"), "101", 50, S + " cliff")
case("volume cliff down to a zero tier", vol(t("100", unit_price="1"), t(unit_price="0")), "101", 0, S + " cliff")
case("volume jump upwards", vol(t("10", unit_price="1"), t(unit_price="3")), "11", 33, S)
case("volume closed end reached", vol(*CLOSED), "20", 20, S)
case("volume closed end passed", vol(*CLOSED), "20.5", ERR, "definitions 8")
case("volume negative refused", vol(*ABC), "-1", ERR, "definitions 8")
case("volume per 1000", vol(t("1000", unit_price="3"), t(unit_price="2"), per=1000), "1001", "2.002", "per on tiers")
case("volume per 7 non-terminating", vol(t("10", unit_price="1", flat_fee="0.5"), per=7), "10", F("10/7") + F("0.5"), "per on tiers")
case("volume 28 digits", vol(*ABC), BIG, F(BIG) / 100, "28 digits")
case("volume without tiers refused", vol(), "1", ERR, "document")

S = "cap per tier"
CAP = [t("100", unit_price="1", maximum="60"), t(unit_price="0.5", maximum="20")]
case("tier cap not reached", grad(*CAP), "60", 60, S)
case("tier cap reached in the first tier", grad(*CAP), "100", 60, S)
case("tier cap reached, second tier below its own", grad(*CAP), "110", 65, S)
case("tier caps both reached", grad(*CAP), "1000", 80, S)
case("tier cap includes the flat fee", grad(t("100", unit_price="1", flat_fee="10", maximum="60")), "80", 60, S, reading=True)
case("tier cap on volume", vol(*CAP), "150", 20, S)
case("tier cap on a step", stair(t("100", amount="50", maximum="40"), t(amount="60")), "100", 40, S + ", definitions 8: a tier may have maximum")
case("tier cap on a step raised by the floor", stair(t("100", amount="50", maximum="60"), t(amount="60"), unit_price_floor="70"), "100", 60, S)
case("tier cap on a flat fee at zero", grad(t(unit_price="1", flat_fee="10", maximum="6"), first_flat_at_zero=True), "0", 6, S, reading=True)
case("tier cap and charge minimum", grad(*CAP, minimum="90"), "1000", 90, S)

S = "package inside a tier"
PT = [t("100", package_size="30", unit_price="5"), t(package_size="50", unit_price="2")]
for q, packs in [("0", 0), ("30", 5), ("31", 10), ("90", 15), ("91", 20), ("100", 20), ("101", 22), ("150", 22), ("150.5", 24)]:
    case(f"graduated packages {q}", grad(*PT), q, packs, S + ": rules 1 rounded up inside each tier, tier(up_to, unit_price, flat_fee, package_size)")
case("volume packages 101", vol(*PT), "101", 6, S)
case("volume packages 100", vol(*PT), "100", 20, S)
case("graduated packages at a floor", grad(*PT, unit_price_floor="3"), "101", 20 + 3, "definitions 8: unit_price_floor is a field of any model")
case("graduated packages priced by amount refused", grad(t("100", package_size="30", amount="5")), "31", ERR, "rules 1 Store: tier(up_to, unit_price, flat_fee, package_size)")
case("graduated packages beside per refused", grad(*PT, per=10), "31", ERR, S, reading=True)
case("graduated packages without a price refused", grad(t("100", package_size="30", flat_fee="5")), "31", ERR, S, reading=True)

# ------------------------------------------------------------------ package
S = "package"
P = pack("250", "4.00")
for q, n in [("0", 0), ("0.000001", 1), ("1", 1), ("249.999999", 1), ("250", 1), ("250.000000000001", 2), ("251", 2),
             ("499", 2), ("500", 2), ("500.01", 3), ("2500000", 10000)]:
    case(f"package 250 at {q}", P, q, 4 * n, S + " boundary")
case("package negative refused", P, "-1", ERR, "definitions 8")
case("package negative refused although max(0, ...)", pack("250", "4", free_units="10"), "-1", ERR, "definitions 8 against rules 1 formula")
case("package minimum one at zero", pack("250", "4.00", minimum_one_package=True), "0", 4, "minimum_one_package")
case("package minimum one off at zero", pack("250", "4.00", minimum_one_package=False), "0", 0, "minimum_one_package")
case("package minimum one at one", pack("250", "4.00", minimum_one_package=True), "1", 4, "minimum_one_package")
case("package minimum one at 251", pack("250", "4.00", minimum_one_package=True), "251", 8, "minimum_one_package")
case("package minimum one, free units cover all", pack("250", "4.00", minimum_one_package=True, free_units="100"), "50", 4, "minimum_one_package", reading=True)
case("package free units larger", pack("250", "4.00", free_units="100"), "99", 0, S + " free units")
case("package free units exact multiple", pack("250", "4.00", free_units="100"), "350", 4, S + " free units")
case("package free units, epsilon over", pack("250", "4.00", free_units="100"), "350.000001", 8, S + " free units")
case("package fractional size, exact multiple", pack("0.1", "1"), "0.3", 3, S + " (0.3 / 0.1 is 3, binary floats say 2.99..)")
case("package fractional size, epsilon over", pack("0.1", "1"), "0.300000000001", 4, S)
case("package size of one third worth", pack("0.333333333333", "1"), "1", 4, S)
case("package 28 digits", pack("1000000", "1.25"), BIG, F("1.25") * 10**22, "28 digits")
case("package 28 digits exact multiple", pack("7", "1"), "7000000000000000000000000000", 10**27, "28 digits")
case("package tie half_even", pack("10", "0.005"), "31", "0.02", S)
case("package with minimum", pack("250", "4.00", minimum="10"), "251", 10, "minimum")
case("package with maximum", pack("250", "4.00", maximum="10"), "750", 10, "maximum")
case("package size zero refused", pack("0", "4"), "1", ERR, "document")
case("package size negative refused", pack("-5", "4"), "1", ERR, "document")

# ------------------------------------------------------------------ stairstep
S = "stairstep"
for q, want in [("0.5", 50), ("99.999999", 50), ("100.000001", 200), ("100.5", 200), ("499", 200), ("500", 200), ("500.5", 700), ("1000000", 700)]:
    case(f"stairstep {q}", STEPS, q, want, S + " boundary")
case("stairstep zero", STEPS, "0", 0, S, reading=True)
case("stairstep zero with first_flat_at_zero", {**STEPS, "first_flat_at_zero": True}, "0", 50, S, reading=True)
CS = stair(t("25", amount="100"), t("50", amount="180"))
case("stairstep last step reached", CS, "50", 180, S)
case("stairstep above the last step", CS, "50.000001", ERR, "rules 1: unrated, never 0")
case("stairstep far above the last step with minimum", {**CS, "minimum": "10"}, "51", ERR, "rules 1: unrated, never 0")
case("stairstep negative refused", CS, "-1", ERR, "definitions 8")
case("stairstep free units bring it back", {**CS, "free_units": "10"}, "60", 180, S)
case("stairstep free units move it down", {**CS, "free_units": "10"}, "35", 100, S)
case("stairstep free units not enough", {**CS, "free_units": "10"}, "60.5", ERR, S)
case("stairstep 50% off", CS, "26", 90, "definitions 7", percent_off="50")
case("stairstep minimum", {**CS, "minimum": "150"}, "5", 150, "minimum")

# ------------------------------------------------------------------ percentage
S = "definitions 11 percentage"
case("percentage plain", pct(rate="0.029"), "1000", 29, S)
case("percentage rate and fixed, 4 events", pct(rate="0.029", fixed="0.30"), "1000", 29 + F("1.20"), S, events=4)
case("percentage rate and fixed, default one event", pct(rate="0.029", fixed="0.30"), "1000", "29.30", S)
case("percentage fixed only", pct(rate="0", fixed="0.30"), "1000", "0.90", S, events=3)
case("percentage without a rate refused", pct(fixed="0.30"), "1000", ERR, S, events=3, reading=True)
case("percentage zero amount, 3 events", pct(rate="0.029", fixed="0.30"), "0", "0.90", S, events=3)
case("percentage zero events", pct(rate="0.029", fixed="0.30"), "0", 0, S, events=0)
FR = pct(rate="0.029", fixed="0.30", free_events=2, free_amount="1000")
case("percentage free: all inside", FR, "1000", 0, S, events=2)
case("percentage free: amount straddles", FR, "1000.01", F("0.01") * F("0.029"), S, events=2)
case("percentage free: events straddle", FR, "999", "0.30", S, events=3)
case("percentage free: both straddle", FR, "1500", F("14.5") + F("0.90"), S, events=5)
case("percentage free: one event", FR, "2000", 29, S, events=1)
case("percentage free: more free events than events", FR, "0", 0, S, events=1)
case("percentage through rate_events, no clamps", FR, None, F("14.5") + F("0.30"), S + ", falls back to the sum", amounts=["500", "700", "300"])
case("percentage through rate_events, nothing", FR, None, 0, S, amounts=[])
case("percentage through rate_events with minimum", {**FR, "minimum": "20"}, None, 20, S, amounts=["500", "700", "300"])
case("percentage negative amount mirrors the rate part", pct(rate="0.029"), "-1000", -29, S + " mirror")
case("percentage negative amount, fixed part keeps its sign", pct(rate="0.029", fixed="0.30"), "-1000", F("-29") + F("0.30"), S + " mirror", events=1, reading=True)
case("percentage negative amount with free amount", pct(rate="0.01", free_amount="100"), "-1100", 0, S + ": rate x max(0, sum - free_amount)")
case("percentage negative amount with free units", pct(rate="0.01", free_units="100"), "-1100", 0, S + ": rate x max(0, sum - free_amount)", reading=True)
case("percentage negative amount with free amount, fixed part", pct(rate="0.01", fixed="0.30", free_amount="100", free_events=1), "-1100", "0.60", S + ": both formulas", events=3)
case("percentage free units add to the free amount", pct(rate="0.01", free_amount="100", free_units="50"), "1150", 10, S, reading=True)
case("percentage minimum", pct(rate="0.029", minimum="5"), "100", 5, "minimum")
case("percentage maximum", pct(rate="0.029", maximum="5"), "1000", 5, "maximum")
case("percentage tie half_even", pct(rate="0.005"), "3", "0.015", S, "0.02", mode="half_even")
case("percentage tie half_even down", pct(rate="0.005"), "5", "0.025", S, "0.02", mode="half_even")
case("percentage 12-decimal rate", pct(rate="0.000000000001"), "1000000000000", 1, S)

S = "definitions 11 per event"
case("per event below minimum", TXN, None, "0.50", S, amounts=["0.01"])
case("per event zero amount is clamped up", TXN, None, "0.50", S, amounts=["0"])
case("per event no events", TXN, None, 0, S, amounts=[])
case("per event no events, charge minimum", {**TXN, "minimum": "3"}, None, 3, S, amounts=[])
case("per event minimum exactly", pct(rate="0.01", per_event_minimum="0.50"), None, "0.50", S, amounts=["50"])
case("per event minimum just over", pct(rate="0.01", per_event_minimum="0.50"), None, "0.5001", S, amounts=["50.01"])
case("per event maximum exactly", pct(rate="0.01", per_event_maximum="2"), None, 2, S, amounts=["200"])
case("per event maximum just over", pct(rate="0.01", per_event_maximum="2"), None, 2, S, amounts=["200.01"])
case("per event maximum each", pct(rate="0.01", per_event_maximum="2"), None, F("2") + 2 + 1, S, amounts=["300", "5000", "100"])
case("per event exact, rounded once at the end", pct(rate="0.001", per_event_minimum="0.001"), None, 10 * F("0.0015"), S, "0.02",
     amounts=["1.5"] * 10)
case("per event min > max refused", pct(rate="0.01", per_event_minimum="2", per_event_maximum="1"), None, ERR, S, amounts=["10"])
FE = pct(rate="0.029", fixed="0.30", free_events=2, free_amount="1000", per_event_minimum="0.50", per_event_maximum="25")
case("per event free: both wholly free", FE, None, 0, S, amounts=["400", "600"])
case("per event free: third inside free amount pays the fixed part, clamped up", FE, None, "0.50", S, amounts=["100", "100", "100"])
case("per event free: second straddles the amount", FE, None, F("0.029") * 100, S, amounts=["900", "200"])
case("per event free: second straddles by a hair, clamped up", FE, None, "0.50", S, amounts=["900", "100.01"])
case("per event free: first straddles alone", FE, None, F("0.029") * 500, S, amounts=["1500"])
case("per event free: exhausted at once, clamped to maximum", FE, None, 25, S, amounts=["101000"])
case("per event free: exactly exhausted, then paying", FE, None, F("0.029") * 100 + F("0.029") * 100 + F("0.30"), S, amounts=["1000", "100", "100"])
case("per event free: order matters, big first", FE, None, F("0.029") * 200 + F("0.50") + F("0.50"), S, amounts=["1200", "10", "5"])
case("per event free: order matters, big last", FE, None, F("0.029") * 215 + F("0.30"), S, amounts=["5", "10", "1200"])
case("per event free events only: rate part is still clamped", pct(rate="0.029", fixed="0.30", free_events=1, per_event_minimum="0.50"),
     None, F("0.50") + F("3.20"), S, amounts=["10", "100"])
case("per event free amount without fixed: inside is free", pct(rate="0.01", free_amount="100", per_event_minimum="0.50"),
     None, F("0.50") + 1, S, amounts=["60", "40", "10", "100"], reading=True)
case("per event free events with a rate of 0", pct(rate="0", fixed="0.30", free_events=2, per_event_minimum="0.50"), None, F("0.50"),
     S + ": an event wholly free is 0", amounts=["1", "1", "1"])
case("per event free events, rate 0 and no fixed part", pct(rate="0", free_events=1, per_event_minimum="0.50"), None, F("0.50"),
     S + ": an event wholly free is 0", amounts=["1", "1"])
case("per event free event of amount 0", pct(rate="0.1", fixed="2", free_events=1, per_event_minimum="3"), None, 3,
     S + ": an event wholly free is 0, the others are clamped", amounts=["0", "0"])
case("per event free event with a rate due", pct(rate="0.1", fixed="2", free_events=1, per_event_minimum="3"), None, 3 + 3,
     S + ": an event wholly free is 0, the others are clamped", amounts=["1", "0"])
case("per event zero amount at the end of the free amount", pct(rate="0.1", free_amount="5", per_event_minimum="1"), None, 0 + 0 + 1,
     S + ": an event wholly free is 0, the others are clamped", amounts=["5", "0", "1"])
case("per event zero amount past the free amount", pct(rate="0.1", free_amount="5", per_event_minimum="1"), None, 1 + 1,
     S + ": an event wholly free is 0, the others are clamped", amounts=["6", "0"])
case("per event zero amount, no allowance, no fixed part", pct(rate="0.01", per_event_minimum="0.50"), None, "0.50",
     S + ": the others are clamped", amounts=["0"])
case("per event negative amount mirrors its charge", TXN, None, F("3.20") - F("0.50"), "rules 0.3", amounts=["100", "-5"], reading=True)
case("per event negative amount mirrors the maximum", TXN, None, -10, "rules 0.3", amounts=["-500"], reading=True)
case("per event negative amount through rate", TXN, "-100", "-3.20", "rules 0.3", events=1, reading=True)
case("per event negative amount back into the free amount", pct(rate="0.1", free_amount="100", per_event_maximum="8"), None,
     F("5") - 5 + 0 + 1, "rules 0.3", amounts=["150", "-70", "20", "10"], reading=True)
case("per event negative amount inside the free amount is free", pct(rate="0.1", free_amount="100", per_event_minimum="1"), None, 0, "rules 0.3",
     amounts=["50", "-20"], reading=True)
case("per event through rate, one event", TXN, "100", "3.20", S, events=1, reading=True)
case("per event through rate, one event clamped", TXN, "5", "0.50", S, events=1, reading=True)
case("per event through rate, no events", TXN, "0", 0, S, events=0, reading=True)
case("per event through rate, an amount of no events refused", TXN, "5", ERR, S, events=0, reading=True)
case("per event through rate, several events refused", TXN, "605", ERR, S, events=3, reading=True)
case("per event total under the charge maximum", {**TXN, "maximum": "12"}, None, 12, S, amounts=["5", "100", "500"])
case("per event 50% off keeps the clamps", TXN, None, F("0.50") + F("1.60") + F("7.40"), "definitions 7", amounts=["5", "100", "500"], percent_off="50", reading=True)

S = "graduated percentage"
for q, want in [("0", 0), ("0.01", F("200.0001")), ("1000", 210), ("1000.01", F("510.0002")), ("10000", 690)]:
    case(f"graduated percentage {q}", GP, q, want, S + " boundary")
case("graduated percentage above the last tier", GP, "10000.01", ERR, "definitions 8")
case("graduated percentage negative refused", GP, "-1", ERR, "definitions 8")
case("graduated percentage flat at zero", {**GP, "first_flat_at_zero": True}, "0", 200, "first_flat_at_zero")
case("graduated percentage through rate_events", GP, None, 591, S, amounts=["500", "550", "4000"])
case("graduated percentage design example", gpct(t("2000", rate="0.015", flat_fee="5"), t(rate="0.01")), "3000.50",
     F("35") + F("0.01") * F("1000.50"), S)
case("graduated percentage tier cap", gpct(t("1000", rate="0.01", maximum="4"), t(rate="0.02")), "1100", 6, "cap per tier")
case("graduated percentage 10% off", GP, "1050", F("511") * F("0.9"), "definitions 7", percent_off="10")

# ------------------------------------------------------------------ matrix
S = "matrix"
case("matrix event without region matches wildcards", M4, "1", "0.03", S, dims={"model": "gpt-4"})
case("matrix event without dimensions: default row", M4, "1", "0.01", S, dims={})
case("matrix extra dimension ignored", M4, "1", "0.033", S, dims={"model": "gpt-4", "region": "eu", "tier": "x"}, minor=3)
case("matrix case matters", M4, "1", "0.01", S, dims={"model": "GPT-4"})
case("matrix empty text is not absent", M4, "1", "0.01", S, dims={"model": "", "region": ""})
case("matrix tie with region declared first", {**M3, "dimensions": ["region", "model"]}, "1", "0.02", S, dims={"model": "gpt-4", "region": "eu"})
case("matrix tie, rows in other order", {**M3, "rows": M3["rows"][::-1]}, "1", "0.03", S, dims={"model": "gpt-4", "region": "eu"})
ABCD = ["a", "b", "c", "d"]
two = matrix(ABCD, [row({"a": "1", "d": "1"}, "0.1"), row({"b": "1", "c": "1"}, "0.2"), row({"c": "1", "d": "1"}, "0.4")])
three = matrix(ABCD, two["rows"] + [row({"b": "1", "c": "1", "d": "1"}, "0.8")])
all4 = {"a": "1", "b": "1", "c": "1", "d": "1"}
case("matrix two against two: a, d beats b, c", two, "1", "0.1", S, dims=all4)
case("matrix b, c beats c, d when a differs", two, "1", "0.2", S, dims={**all4, "a": "2"})
case("matrix three beat any two", three, "1", "0.8", S, dims=all4)
case("matrix tie on a, decided on second dimension", matrix(ABCD, [row({"a": "1", "c": "1"}, "1"), row({"a": "1", "b": "1"}, "2"), row({"a": "1", "d": "1"}, "3")]),
     "1", 2, S, dims=all4)
case("matrix an absent dimension does not let a weaker row win", matrix(["m", "r", "t"], [row({"m": "1", "r": "1"}, "1"), row({"r": "1"}, "2"), row({"r": "1", "t": "1"}, "3")]),
     "1", 3, S, dims={"r": "1", "t": "1"})
NODEF = matrix(["model"], [row({"model": "gpt-4"}, "0.03")])
case("matrix no default row", NODEF, "1", ERR, "rules 1: unrated queue, never 0", dims={"model": "x"})
case("matrix no default row, dimension absent", NODEF, "1", ERR, "rules 1: unrated queue, never 0", dims={})
case("matrix no default row, quantity 0", NODEF, "0", ERR, "rules 1: unrated queue, never 0", dims={"model": "x"})
case("matrix no default row, not saved by minimum", {**NODEF, "minimum": "5"}, "1", ERR, "rules 1: unrated queue, never 0", dims={"model": "x"})
case("matrix same row twice refused", matrix(["model"], [row({"model": "a"}, "1"), row({"model": "a"}, "1"), row({}, "2")]), "1", ERR,
     "rules 1: configuration error", dims={"model": "a"})
case("matrix same row twice refused, though not selected", matrix(["model"], [row({"model": "a"}, "1"), row({"model": "a"}, "1"), row({}, "2")]), "1", ERR,
     "rules 1: configuration error at publish", dims={"model": "b"})
case("matrix two default rows refused", matrix(["model"], [row({}, "1"), row({}, "2")]), "1", ERR, "rules 1: configuration error", dims={})
case("matrix undeclared dimension refused", matrix(["model"], [row({"region": "eu"}, "1"), row({}, "2")]), "1", ERR, "D1: match on declared dimensions", dims={})
case("matrix free units beside rows refused", {**M4, "free_units": "10"}, "100", ERR, "definitions 8", dims={"model": "gpt-4"})
case("matrix row with unit_price and pricing refused", matrix(["m"], [row({}, "1", pricing=flat("5"))]), "1", ERR, "definitions 8", dims={})
case("matrix row with neither refused", matrix(["m"], [row({})]), "1", ERR, "definitions 8", dims={})
case("matrix negative mirrors on a unit price", M4, "-100", -3, "definitions 8 mirror", dims={"model": "gpt-4"})
case("matrix minimum beside rows", {**M4, "minimum": "5"}, "100", 5, "definitions 8", dims={"model": "gpt-4"})
case("matrix maximum beside rows", {**M4, "maximum": "2"}, "100", 2, "definitions 8", dims={"model": "gpt-4"})
case("matrix row minimum, another row selected", STATES, "1", ERR, "definitions 8", dims={"state": "TX"})
ROWMIN = matrix(["s"], [row({"s": "a"}, "1", minimum="10", maximum="20"), row({}, "1")], minimum="5", maximum="15")
for s, q, want in [("a", "1", 10), ("a", "12", 12), ("a", "18", 15), ("b", "1", 5), ("b", "18", 15)]:
    case(f"matrix row and charge minimum {s} {q}", ROWMIN, q, want, "definitions 8: row first, then charge", dims={"s": s})
case("matrix row minimum > maximum refused", matrix(["s"], [row({"s": "a"}, "1", minimum="10", maximum="9"), row({}, "1")]), "1", ERR,
     "rules 1 min > max is invalid", dims={"s": "b"})
case("matrix row minimum above charge maximum: the charge decides", matrix(["s"], [row({}, "1", minimum="10")], maximum="8"), "1", 8, "definitions 8", dims={}, reading=True)
case("matrix row free units", matrix(["s"], [row({"s": "a"}, "0.5", free_units="10"), row({}, "1")]), "30", 10, "definitions 8", dims={"s": "a"})
case("matrix row free units do not touch others", matrix(["s"], [row({"s": "a"}, "0.5", free_units="10"), row({}, "1")]), "30", 30, "definitions 8", dims={"s": "b"})
case("matrix per 3600", matrix(["s"], [row({}, "0.15")], per=3600), "7", F("1.05") / 3600, "per beside rows", dims={})
OWN = matrix(["s"], [row({"s": "a"}, pricing=grad(*FEE, minimum="20")), row({"s": "p"}, pricing=pack("250", "4.00")),
                     row({"s": "v"}, pricing=vol(*ABC, free_units="1"), minimum="60"), row({"s": "f"}, pricing=flat("9.99")),
                     row({"s": "%"}, pricing=pct(rate="0.029", fixed="0.30")), row({}, "0.01")], per=1000)
for s, q, want in [("a", "101", F("115.5")), ("a", "1", 20), ("a", "250", 170), ("p", "251", 8), ("v", "1002", 60),
                   ("v", "2001", 100), ("f", "0", F("9.99")), ("x", "1", F("0.00001"))]:
    case(f"matrix row's own pricing {s} {q}", OWN, q, want, "definitions 8: a row may hold a whole pricing; its per is its own", dims={"s": s})
case("matrix row's own percentage, 4 events", OWN, "1000", F("30.20"), "definitions 8", dims={"s": "%"}, events=4)
case("matrix row's own graduated, negative refused", OWN, "-1", ERR, "definitions 8", dims={"s": "a"})
case("matrix default row, negative mirrors", OWN, "-1000", "-0.01", "definitions 8", dims={"s": "x"})
case("matrix row's own pricing invalid refuses all", matrix(["s"], [row({"s": "a"}, pricing=unit("1", minimum="2", maximum="1")), row({}, "1")]), "1", ERR,
     "rules 1 min > max is invalid", dims={"s": "b"})
case("matrix row's own pricing with row free units", matrix(["s"], [row({}, pricing=grad(*FEE), free_units="50")]), "151", "115.5", "definitions 8: inside a row on that row's lines", dims={})
case("matrix row's own percentage with row free units", matrix(["s"], [row({}, pricing=pct(rate="0.01", free_amount="100"), free_units="50")]), "1150", 10,
     "definitions 8: inside a row on that row's lines", dims={}, reading=True)
case("matrix row minimum beside its pricing's maximum", matrix(["s"], [row({}, pricing=unit("1", maximum="9"), minimum="5")]), "20", 9, "definitions 8", dims={})
case("matrix row minimum above its pricing's maximum refused", matrix(["s"], [row({}, pricing=unit("1", maximum="4"), minimum="5")]), "20", ERR,
     "rules 1 min > max is invalid", dims={})
case("matrix row maximum below its pricing's minimum refused", matrix(["s"], [row({"s": "a"}, pricing=unit("1", minimum="6"), maximum="5"), row({}, "1")]), "20", ERR,
     "rules 1 min > max is invalid", dims={})
for name in ["minimum", "maximum", "free_units"]:
    case(f"matrix {name} in a row and in its pricing refused", matrix(["s"], [row({}, pricing=unit("1", **{name: "5"}), **{name: "5"})]), "20", ERR,
         "definitions 8", dims={}, reading=True)
case("matrix inside a matrix refused", matrix(["s"], [row({}, pricing=matrix(["s"], [row({}, "1")]))]), "20", ERR, "definitions 8", dims={}, reading=True)
case("matrix match by number and boolean", matrix(["s", "b"], [row({"s": 1.5, "b": True}, "2"), row({}, "1")]), "1", 2,
     "definitions 22: a number or boolean its canonical text", dims={"s": "1.5", "b": "true"})
case("matrix of per-event rows through rate_events", matrix(["s"], [row({"s": "a"}, "1"), row({}, pricing=TXN)], maximum="12"), None, 12,
     "definitions 11: rated from its events", amounts=["5", "100", "500"])
case("matrix of per-event rows through rate_events, no default row", matrix(["s"], [row({"s": "a"}, pricing=TXN)]), None, ERR,
     "rules 1: unrated", amounts=["5"])
case("matrix row's own pricing with row maximum", matrix(["s"], [row({}, pricing=grad(*FEE), maximum="100")]), "151", 100, "definitions 8", dims={})
case("matrix row's own pricing 50% off, its minimum stays", OWN, "1", 20, "definitions 7", dims={"s": "a"}, percent_off="50")
case("matrix row's own pricing 50% off, package", OWN, "251", 4, "definitions 7", dims={"s": "p"}, percent_off="50")

# ------------------------------------------------------------------ dynamic
S = "dynamic"
DYN = {"model": "dynamic", "amount_property": "cost", "multiplier": "1.2"}
case("dynamic", DYN, "12.345", "14.814", S, "14.81")
case("dynamic zero", DYN, "0", 0, S)
case("dynamic negative mirrors", DYN, "-12.345", "-14.814", S)
case("dynamic tie", {**DYN, "multiplier": "1.5"}, "0.01", "0.015", S, "0.02")
case("dynamic tie half_even", {**DYN, "multiplier": "2.5"}, "0.01", "0.025", S, "0.02", mode="half_even")
case("dynamic without multiplier", {"model": "dynamic", "amount_property": "cost"}, "7.77", "7.77", S, reading=True)
case("dynamic 10% off scales the multiplier", DYN, "100", 108, "definitions 7", percent_off="10", reading=True)
case("dynamic minimum and maximum", {**DYN, "minimum": "1", "maximum": "2"}, "10", 2, S)
case("dynamic ignores events", DYN, "10", 12, S, events=5)

# ------------------------------------------------------------------ percent off and floor
S = "definitions 7 percent_off"
case("percent off per_unit 50", unit("0.03", per=1000), "1234567", "18.518505", S, "18.52", percent_off="50")
case("percent off 0", unit("0.03"), "7", "0.21", S, percent_off="0")
case("percent off 100", unit("0.03"), "7", 0, S, percent_off="100")
case("percent off 12.5 exact", unit("0.03"), "1", "0.02625", S, percent_off="12.5")
case("percent off 33.333333 exact, nothing rounded", unit("0.01"), "3", F("0.03") * (1 - F("0.33333333")), S, percent_off="33.333333")
case("percent off 12-decimal price gets 14 decimals", unit("0.000000000001"), "500000000000", F("0.43500"), S, percent_off="13")
case("percent off negative refused", unit("0.03"), "100", ERR, S, percent_off="-7", reading=True)
case("percent off above 100 refused", unit("0.03"), "100", ERR, S, percent_off="100.01", reading=True)
case("percent off flat", flat("149.00"), "1", "134.1", S, percent_off="10")
case("percent off package", P, "251", 6, S, percent_off="25")
case("percent off graduated with fees", grad(*FEE), "250", F("170") * F("0.9"), S, percent_off="10")
case("percent off volume with fees", vol(*FEE), "101", F("55.5") * F("0.9"), S, percent_off="10")
case("percent off percentage", pct(rate="0.029", fixed="0.30"), "1000", F("29.30") / 2, S, percent_off="50")
case("percent off percentage keeps the free parts", FR, "1500", (F("14.5") + F("0.90")) / 2, S, events=5, percent_off="50")
case("percent off keeps the minimum", unit("1", minimum="80"), "100", 80, S, percent_off="50")
case("percent off keeps the maximum", unit("1", maximum="40"), "100", 40, S, percent_off="50")
case("percent off keeps the free units", unit("1", free_units="50"), "100", 25, S, percent_off="50")
case("percent off keeps the tier cap", grad(*CAP), "1000", F("50") + 20, S, percent_off="50", reading=True)
case("percent off matrix row by row", M4, "1000", "16.5", S, dims={"model": "gpt-4", "region": "eu"}, percent_off="50")
case("percent off tie half_even", unit("0.01"), "1", "0.005", S, "0.00", percent_off="50", mode="half_even")
S = "unit_price_floor"
FL = unit("0.03", unit_price_floor="0.02")
case("floor not reached", FL, "100", 3, S)
case("floor just not reached at 33.3333% off", unit("0.03", unit_price_floor="0.02"), "100", F("2.000001"), S, percent_off="33.3333")
case("floor holds at 50% off", FL, "100", 2, S, percent_off="50")
case("floor holds at 100% off", FL, "100", 2, S, percent_off="100")
case("floor is not discounted itself", unit("0.03", unit_price_floor="0.03"), "100", 3, S, percent_off="10")
case("floor above the price without a discount", unit("0.03", unit_price_floor="0.05"), "100", 5, S, reading=True)
case("floor for the same per", unit("0.03", per=1000, unit_price_floor="0.02"), "1234567", "24.69134", S, "24.69", percent_off="50", reading=True)
case("floor in graduated tiers, tier by tier", grad(*ABC, unit_price_floor="0.04"), "15000", F("50") + 9000 * F("0.04") + 5000 * F("0.04"), S, percent_off="50")
case("floor raises a zero tier", grad(*REQ, unit_price_floor="0.0005"), "2000", F("0.5") + 1, S, reading=True)
case("floor does not hold up the flat fee", grad(*FEE, unit_price_floor="0.9"), "100", 90 + 5, S, percent_off="50")
case("floor in volume", vol(*ABC, unit_price_floor="0.03"), "1001", "30.03", S, percent_off="50")
case("floor beside rows", {**M4, "unit_price_floor": "0.02"}, "100", 2, S, dims={"model": "gpt-4", "region": "eu"}, percent_off="50")
case("floor beside rows, other row raised", {**M4, "unit_price_floor": "0.02"}, "100", 2, S, dims={}, reading=True)
case("floor beside rows does not reach a row's own pricing", matrix(["s"], [row({}, pricing=unit("1"))], unit_price_floor="0.9"), "100", 50, S,
     dims={}, percent_off="50", reading=True)
case("floor inside a row's own pricing", matrix(["s"], [row({}, pricing=unit("1", unit_price_floor="0.9"))]), "100", 90, S, dims={}, percent_off="50")
S = "definitions 8: unit_price_floor is a field of any model"
case("floor on a flat amount", flat("4", unit_price_floor="3"), "1", 3, S, percent_off="50")
case("floor on a package", pack("250", "4.00", unit_price_floor="3"), "251", 6, S, percent_off="50")
case("floor on a package, not reached", pack("250", "4.00", unit_price_floor="1"), "250", 2, S, percent_off="50")
case("floor on a step", {**STEPS, "unit_price_floor": "40"}, "100", 40, S, percent_off="50")
case("floor on a step at zero", {**STEPS, "unit_price_floor": "40", "first_flat_at_zero": True}, "0", 40, S, percent_off="50")
case("floor on a rate, not on the fixed part", pct(rate="0.03", fixed="0.30", unit_price_floor="0.02"), "1000", F("20.15"), S, percent_off="50")
case("floor on a rate per event", pct(rate="0", fixed="0.10", free_events=1, per_event_minimum="0.15", unit_price_floor="0.02"), None,
     F("0.2") + F("0.3"), S, amounts=["10", "10"])
case("floor on graduated rates, not on the fees", {**GP, "unit_price_floor": "0.015"}, "1500", F("15") + 200 + 10 + 300, S)
case("floor on a multiplier", {**DYN, "unit_price_floor": "1"}, "100", 100, S, percent_off="50")
case("floor on an absent multiplier", {"model": "dynamic", "unit_price_floor": "1.5"}, "100", 150, S)
case("floor on a tier of nothing but a fee has nothing to hold up", grad(t(flat_fee="3"), unit_price_floor="2"), "100", 3, S, reading=True)
S = "unit_price_floor"
case("floor, then minimum", unit("0.03", unit_price_floor="0.02", minimum="2.5"), "100", "2.5", S, percent_off="50")
case("floor, negative quantity mirrors", FL, "-100", -2, S, percent_off="50")

S = "document"
case("unknown model refused", {"model": "magic"}, "1", ERR, S)
case("model missing refused", {"unit_price": "1"}, "1", ERR, S)
case("per_unit without price refused", {"model": "per_unit"}, "1", ERR, S)
case("flat without amount refused", {"model": "flat"}, "1", ERR, S)
case("package without size refused", {"model": "package", "amount": "1"}, "1", ERR, S)
case("price that is no number refused", unit("abc"), "1", ERR, S)
case("min > max on flat refused", flat("5", minimum="2", maximum="1"), "1", ERR, "rules 1 min > max is invalid")
case("min > max on graduated refused", grad(*ABC, minimum="2", maximum="1"), "1", ERR, "rules 1 min > max is invalid")
case("min > max beside rows refused", {**M4, "minimum": "2", "maximum": "1"}, "1", ERR, "rules 1 min > max is invalid", dims={})

# ------------------------------------------------------------------ proration (rules 0.4, 2)
PRO = []


def pro(name, amount, quantity, days, total, hand, source="rules 2 worked", minor=2, mode="half_up", basis="day"):
    x = F(amount) * F(quantity) * F(days) / F(total)
    r = fixed_text(rounded(x, minor, mode), minor)
    assert hand is None or r == hand, (name, r, hand)
    PRO.append({"name": name, "amount": amount, "quantity": quantity, "days": days, "total": total, "basis": basis,
                "exact": exact_text(x), "minor_units": minor, "mode": mode, "rounded": r, "source": source})


pro("calendar stub from 20 Jan", "310", "1", "12", "31", "120.00")
pro("upgrade 16 Apr credit", "-100", "1", "15", "30", "-50.00")
pro("upgrade 16 Apr charge", "300", "1", "15", "30", "150.00")
pro("upgrade 11 Mar credit", "-100", "1", "21", "31", "-67.74")
pro("upgrade 11 Mar charge", "300", "1", "21", "31", "203.23")
pro("upgrade 11 Mar as one net line (wrong, for contrast)", "200", "1", "21", "31", "135.48")
assert F("203.23") - F("67.74") == F("135.49")
pro("second basis New York credit, hours", "-100", "1", "372", "743", "-50.07", basis="second")
pro("second basis New York charge, hours", "300", "1", "372", "743", "150.20", basis="second")
pro("second basis New York credit, seconds", "-100", "1", str(372 * 3600), str(743 * 3600), "-50.07", basis="second")
pro("cancel at half, 20% off", "-80", "1", "15", "30", "-40.00")
pro("5 seats at 20, day 11 of 30", "20", "5", "20", "30", "66.67")
pro("one seat at 20 (13.33 x 5 = 66.65 is wrong)", "20", "1", "20", "30", "13.33")
pro("30_actual 20-31 Jan", "310", "1", "12", "30", "124.00", basis="30_actual")
pro("30_strict 20-31 Jan", "310", "1", "11", "30", "113.67", basis="30_strict")
pro("co-term by day", "12000", "1", "275", "365", "9041.10")
pro("co-term by month", "12000", "1", "9", "12", "9000.00", basis="month")
pro("fiscal stub", "120000", "1", "78", "365", "25643.84")
pro("annual cancelled 1 Jul", "-1200", "1", "184", "365", "-604.93")
pro("quarter from 10 Feb", "9000", "1", "50", "90", "5000.00")
pro("multiply before you divide", "4.35", "1", "1", "30", "0.15", source="rules 0.4")
pro("multiply before you divide, credit", "-4.35", "1", "1", "30", "-0.15", source="rules 0.4 and 0.3")
pro("multiply before you divide, half_even", "4.35", "1", "1", "30", "0.14", source="rules 0.4", mode="half_even")
pro("no days left", "310", "1", "0", "31", "0.00", source="boundary")
pro("all days left", "310", "1", "31", "31", "310.00", source="boundary")
pro("one day of a leap year", "366", "1", "1", "366", "1.00", source="boundary")
pro("JPY", "1000", "3", "10", "31", "968", source="minor units 0", minor=0)
pro("JPY tie", "5", "1", "15", "30", "3", source="minor units 0", minor=0)
pro("JPY tie half_even", "5", "1", "15", "30", "2", source="minor units 0", minor=0, mode="half_even")
pro("KWD", "1.2345", "1", "1", "3", "0.412", source="minor units 3 (0.4115 tie)", minor=3)
pro("KWD half_even", "1.2345", "1", "1", "3", "0.412", source="minor units 3 (0.4115 tie, 412 is even)", minor=3, mode="half_even")
pro("28 digits", BIG, "1", "1", "31", None, source="28 digits")
pro("fractional seats", "19.99", "2.5", "17", "28", None, source="exact fraction")
pro("743 h month, whole", "99.99", "1", str(743 * 3600), str(743 * 3600), "99.99", source="boundary", basis="second")

# ------------------------------------------------------------------ allocation (rules 0.6)
ALL = []


def allo(name, total, weights, parts, scale=2, source="rules 0.6", reading=False):
    assert parts is ERR or sum(map(F, parts)) == F(total), name
    outcome = {"error": True} if parts is ERR else {"parts": parts}
    ALL.append({"name": name, "total": total, "weights": weights, "scale": scale} | outcome | ({"reading": True} if reading else {}) | {"source": source})


allo("100.00 in three", "100.00", ["1", "1", "1"], ["33.34", "33.33", "33.33"])
allo("10.00 at 1:2:4", "10.00", ["1", "2", "4"], ["1.43", "2.86", "5.71"])
allo("invoice level 100.01", "100.01", ["33.335", "33.335", "33.335"], ["33.34", "33.34", "33.33"], source="definitions 9")
allo("credit -100.00 in three is the mirror", "-100.00", ["1", "1", "1"], ["-33.34", "-33.33", "-33.33"], source="rules 0.3, 0.6")
allo("credit -10.00 at 1:2:4", "-10.00", ["1", "2", "4"], ["-1.43", "-2.86", "-5.71"], source="rules 0.3, 0.6")
allo("zero", "0.00", ["1", "2"], ["0.00", "0.00"])
allo("one line", "12.34", ["7"], ["12.34"])
allo("one cent in three", "0.01", ["1", "1", "1"], ["0.01", "0.00", "0.00"])
allo("two cents in three", "0.02", ["1", "1", "1"], ["0.01", "0.01", "0.00"])
allo("one cent, biggest last", "0.01", ["1", "1", "2"], ["0.00", "0.00", "0.01"])
allo("minus one cent, biggest last", "-0.01", ["1", "1", "2"], ["0.00", "0.00", "-0.01"])
allo("zero weight gets nothing", "10.00", ["0", "1", "2"], ["0.00", "3.33", "6.67"])
allo("zero weights never get the left-over", "0.05", ["0", "1", "1", "0"], ["0.00", "0.03", "0.02", "0.00"])
allo("tie by order in the middle", "0.10", ["1", "2", "2", "1"], ["0.02", "0.03", "0.03", "0.02"])
allo("weights scale freely", "10.00", ["0.001", "0.002", "0.004"], ["1.43", "2.86", "5.71"])
allo("huge weights", "10.00", ["1000000000000000000000000000", "2000000000000000000000000000", "4000000000000000000000000000"], ["1.43", "2.86", "5.71"])
allo("JPY 100 in three", "100", ["1", "1", "1"], ["34", "33", "33"], scale=0)
allo("KWD 1.000 in three", "1.000", ["1", "1", "1"], ["0.334", "0.333", "0.333"], scale=3)
allo("JPY 10 at 1:2:4", "10", ["1", "2", "4"], ["1", "3", "6"], scale=0)
allo("seven lines of one cent more", "0.07", ["1"] * 10, ["0.01"] * 7 + ["0.00"] * 3)
allo("six decimals (spend)", "188.00", ["1", "1", "1"], ["62.666667", "62.666667", "62.666666"], scale=6, source="definitions 21")
allo("28 digits", "9999999999999999999999999.99", ["1", "1"], ["5000000000000000000000000.00", "4999999999999999999999999.99"])
allo("remainders 1/7 apart", "1.00", ["1", "1", "1", "1", "1", "1", "1"], ["0.15", "0.15", "0.14", "0.14", "0.14", "0.14", "0.14"])
allo("all weights zero: equal", "0.05", ["0", "0", "0"], ["0.02", "0.02", "0.01"], source="no rule", reading=True)
allo("all weights negative: as their mirror", "10.00", ["-1", "-2", "-4"], ["1.43", "2.86", "5.71"], source="no rule", reading=True)
allo("no weights", "0.00", [], [], source="no rule", reading=True)
allo("no weights for a total refused", "0.01", [], ERR, source="no rule", reading=True)
allo("weights that cancel refused", "0.03", ["5", "-5"], ERR, source="no rule", reading=True)
allo("negative weight among others refused", "10.00", ["3", "-1"], ERR, source="no rule", reading=True)
allo("total off the grid refused", "0.005", ["1", "1"], ERR, source="rules 0.6: a rounded total")

for name, data in [("pricing", CASES), ("proration", PRO), ("allocation", ALL)]:
    with open(os.path.join(HERE, name + ".json"), "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in data) + "\n]\n")
    print(name, len(data), "errors", sum(1 for c in data if c.get("error")), "readings", sum(1 for c in data if c.get("reading")))
