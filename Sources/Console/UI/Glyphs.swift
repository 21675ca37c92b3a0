/// Which characters the terminal can show.
public enum GlyphSet: Hashable, Sendable {
    case unicode
    case ascii
}

/// Replacements for the ascii set. Views always draw the unicode set; `CellGrid.inASCII` translates the finished screen, so that
/// both have the same layout by construction.
enum Glyphs {
    static func ascii(for scalar: UInt32) -> UInt8 {
        switch scalar {
        case 0x2500, 0x2501, 0x2212: UInt8(ascii: "-")                          // ─ ━ −
        case 0x2502, 0x2503, 0x2590: UInt8(ascii: "|")                          // │ ┃ ▐
        case 0x2022: UInt8(ascii: "*")                                          // • mark
        case 0x250c...0x254b, 0x256d...0x2570: UInt8(ascii: "+") // corners and joints, heavy and round
        case 0x254c: UInt8(ascii: "c")                                          // ╌ candidate
        case 0x254e: UInt8(ascii: ":")                                          // ╎ down lane
        case 0x2588: UInt8(ascii: "#")                                          // █
        case 0x2593: UInt8(ascii: "=")                                          // ▓
        case 0x2592: UInt8(ascii: "-")                                          // ▒
        case 0x2591: UInt8(ascii: ".")                                          // ░
        case 0x2581, 0x2582: UInt8(ascii: "_")                                  // low eighths
        case 0x2583, 0x2584: UInt8(ascii: "-")
        case 0x2585, 0x2586: UInt8(ascii: "=")
        case 0x2587: UInt8(ascii: "#")
        case 0x2589...0x258b: UInt8(ascii: "#")                                 // left seven to five eighths
        case 0x258c, 0x258d: UInt8(ascii: "=")
        case 0x258e, 0x258f: UInt8(ascii: "-")
        case 0x2800: UInt8(ascii: " ")
        case 0x2801...0x28ff:                                                   // braille: by number of dots
            ascii(dots: (scalar & 0xff).nonzeroBitCount)
        case 0x265b: UInt8(ascii: "*")                                          // ♛
        case 0x25cf: UInt8(ascii: "o")                                          // ●
        case 0x25cc: UInt8(ascii: "?")                                          // ◌
        case 0x25cb: UInt8(ascii: "l")                                          // ○ learner
        case 0x2016: UInt8(ascii: "=")                                          // ‖
        case 0x2260: UInt8(ascii: "/")                                          // ≠
        case 0x2715: UInt8(ascii: "x")                                          // ✕
        case 0x2713: UInt8(ascii: "+")                                          // ✓
        case 0x25b8, 0x25b6, 0x203a, 0x2192: UInt8(ascii: ">")                  // ▸ ▶ › →
        case 0x25c2, 0x25c3, 0x2190: UInt8(ascii: "<")                          // ◂ ◃ ←
        case 0x25be, 0x25bc, 0x25bd, 0x2193: UInt8(ascii: "v")
        case 0x25b4, 0x25b2, 0x2191, 0x394: UInt8(ascii: "^")                   // ▴ ▲ ↑ Δ
        case 0x25c6, 0x25ca, 0x25a3, 0x2605: UInt8(ascii: "#")                          // ◆ ▣ ★
        case 0x25f7, 0x25d4: UInt8(ascii: "@")                                  // ◷
        case 0xb7: UInt8(ascii: "-")                                            // ·
        case 0x2026: UInt8(ascii: "~")                                          // …
        case 0x2014, 0x2013: UInt8(ascii: "-")
        case 0x2264: UInt8(ascii: "<")                                          // ≤
        case 0x2265: UInt8(ascii: ">")                                          // ≥
        case 0x2248: UInt8(ascii: "~")
        case 0xd7: UInt8(ascii: "x")
        case 0x21b5: UInt8(ascii: "~")
        case 0x270e: UInt8(ascii: "w")                                          // ✎
        case 0xb1: UInt8(ascii: "+")
        default: UInt8(ascii: "?")
        }
    }

    private static func ascii(dots: Int) -> UInt8 {
        switch dots {
        case 0...1: UInt8(ascii: ".")
        case 2...3: UInt8(ascii: ":")
        case 4...5: UInt8(ascii: "+")
        default: UInt8(ascii: "#")
        }
    }
}
