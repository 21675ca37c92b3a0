import Base
import Foundation

/// What `serve` was told, from wherever: each value belongs to a row of `ServeFlags` and has its form.
struct ServeSettings: Sendable {
    /// By the row's first name; never empty.
    private(set) var given: [String: String] = [:]
    /// From `--config-file`, which leaves no say to flags and variables.
    private(set) var file: String?
    /// For the log: what is ignored and why.
    private(set) var warnings: [String] = []

    // MARK: Reading

    /// What a command line asks for.
    enum Wish: Sendable {
        case help, version
        case run(ServeSettings)
    }

    /// Flags over environment over defaults, or the file alone. etcd's rules, and its words where it has them.
    static func read(_ words: [String], environment: [String: String]) throws(CommandFailure) -> Wish {
        var settings = ServeSettings()
        guard let flags = try settings.parse(words) else { return words.contains(where: isHelp) ? .help : .version }
        let path = flags["config-file"] ?? environment["ETCD_CONFIG_FILE"] ?? ""
        if path.isEmpty {
            try settings.take(flags: flags, environment: environment)
        } else {
            try settings.take(file: path)
            // A console's nodes get their options from it alone.
            settings.given["supervised"] = flags["supervised"]
        }
        try settings.check()
        try settings.openGates()
        return .run(settings)
    }

    private static func isHelp(_ word: String) -> Bool { ["-h", "-help", "--help"].contains(word) }

    /// As Go's package reads: one dash or two, a value behind `=` or in the next word; of what is said twice the last counts.
    /// - Returns: nil when help or version is wanted.
    private func parse(_ words: [String]) throws(CommandFailure) -> [String: String]? {
        func wrong(_ line: String) -> CommandFailure { CommandFailure(description: line + "  (serve --help lists the flags)", status: 64) }
        var flags: [String: String] = [:]
        var rest = words[...]
        while let word = rest.popFirst() {
            if ServeSettings.isHelp(word) || word == "--version" || word == "-version" { return nil }
            guard word.hasPrefix("-"), word != "-", word != "--" else { throw wrong("'\(word)' is not a valid flag") }
            let text = word.dropFirst(word.hasPrefix("--") ? 2 : 1)
            let name = String(text.prefix { $0 != "=" })
            guard let flag = ServeFlags.byName[name] else { throw wrong("unknown flag --\(name)") }
            if let equals = text.firstIndex(of: "=") {
                flags[flag.name] = String(text[text.index(after: equals)...])
            } else if flag.isTruth {
                // Go would take a value in the next word for nonsense; saying it so can only mean one thing.
                if let next = rest.first, ServeFlag.truth(next) != nil { flags[flag.name] = rest.removeFirst() } else { flags[flag.name] = "true" }
            } else {
                guard let value = rest.popFirst() else { throw wrong("--\(name) needs a value") }
                flags[flag.name] = value
            }
        }
        return flags
    }

    private mutating func take(flags: [String: String], environment: [String: String]) throws(CommandFailure) {
        for name in environment.keys.sorted() where name.hasPrefix("ETCD_") {
            guard let value = environment[name], !value.isEmpty else { continue }
            if name == "ETCD_VERSION" {
                warnings.append("cannot set special environment variable ETCD_VERSION")
            } else if let flag = ServeFlags.byVariable[name], !flag.isHidden {
                guard flags[flag.name] == nil else {
                    throw CommandFailure(description: "conflicting environment variable \(name) is shadowed by corresponding command-line flag --\(flag.name) "
                        + "(either unset environment variable or disable flag)", status: 1)
                }
                given[flag.name] = value
            } else if name != "ETCD_UNSUPPORTED_ARCH" {
                warnings.append("unrecognized environment variable \(name)")
            }
        }
        for (name, value) in flags {
            // A text, or a list, may be empty and is none then.
            guard !value.isEmpty || ServeFlags.flag(name).mayBeEmpty else { throw CommandFailure(description: "--\(name) needs a value", status: 64) }
            if !value.isEmpty { given[name] = value }
        }
    }

    private mutating func take(file path: String) throws(CommandFailure) {
        file = path
        warnings.append("loaded server configuration from \(path), other configuration command line flags and environment variables will be ignored if provided")
        let values = try ServeConfigFile.values(path)
        for (name, value) in values.sorted(by: { $0.key < $1.key }) {
            guard let flag = ServeFlags.byName[name], !flag.isHidden else {
                warnings.append("\(path): nothing here is called \(name)")
                continue
            }
            if value.isEmpty { continue }
            given[flag.name] = flag.isTime && Int64(value) != nil ? value + "ns" : value
        }
    }

    /// Every value has its row's form, and what a row says of itself is done.
    private mutating func check() throws(CommandFailure) {
        for flag in ServeFlags.groups.flatMap(\.flags) {
            guard let value = given[flag.name] else { continue }
            if let objection = flag.objection(to: value) { throw CommandFailure(description: "--\(flag.name) \(value): \(objection)", status: 64) }
            switch flag.standing {
            case .works: break
            // What says false asks for nothing.
            case .idle(let reason): if !flag.isTruth || ServeFlag.truth(value) == true { warnings.append("--\(flag.name) has no effect: \(reason)") }
            case .absent(let harmless, let reason):
                let text = flag.isTruth ? "\(ServeFlag.truth(value)!)" : value
                guard harmless.contains(text) else { throw CommandFailure(description: "--\(flag.name) \(value): \(reason)", status: 64) }
            }
        }
    }

    mutating func warn(_ line: String) { warnings.append(line) }
    mutating func set(_ name: String, _ value: String) { given[ServeFlags.flag(name).name] = value }

    // MARK: Values

    func isGiven(_ name: String) -> Bool { given[ServeFlags.flag(name).name] != nil }
    func text(_ name: String) -> String { given[ServeFlags.flag(name).name] ?? ServeFlags.flag(name).standard }
    /// nil: nothing was said, and nothing is the default.
    func textIfAny(_ name: String) -> String? {
        let text = text(name)
        return text.isEmpty ? nil : text
    }

    func list(_ name: String) -> [String] {
        text(name).split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    }
    func truth(_ name: String) -> Bool { ServeFlag.truth(text(name))! }
    func number(_ name: String) -> Int { Int(text(name))! }
    func time(_ name: String) -> TimeSpan { TimeSpan(goDuration: text(name))! }

    /// Empty only where the default is.
    func urls(_ name: String) throws(CommandFailure) -> [ServiceURL] {
        var urls: [ServiceURL] = []
        do throws(CommandFailure) {
            for part in list(name) { urls.append(try ServiceURL(parsing: part)) }
        } catch { throw CommandFailure(description: "--\(name): \(error.description)", status: 64) }
        guard !urls.isEmpty || ServeFlags.flag(name).standard.isEmpty && !isGiven(name) else { throw CommandFailure(description: "--\(name): expected at least one URL", status: 64) }
        return urls
    }
}
