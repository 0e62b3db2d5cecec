-- How the next portion of a lane is cut, inside Redis. A fragment: other scripts are built on it.
--
-- It defines `split(m)`, which returns amount_fen and tier (0, or the 1-based line of the prize
-- table). It is the twin of packets/splitting.py and gives the same portions; a change to one is a
-- change to both. It reads no key, writes nothing and leaves `m` as it was. All fields of `m` are
-- numbers, but the key:
--   strategy     1 fixed, 2 lucky, 3 double_mean, 4 tiers
--   remainder    1, 2 or 3: how a prize table's rest is cut (read for strategy 4 only)
--   key          this lane's and this epoch's key of randomness
--   index        index of the portion to cut, from 0 in every epoch
--   left_fen, left_count     what is left, prizes included; left_count must be at least 1
--   start_fen, start_count   the epoch's start WITHOUT its tier prizes (State.start_* in Python)
--   min_fen, max_fen         bounds; max_fen 0 means no cap
--   evenness     as in the effective rules
--   tiers        array of {amount_fen, quantity left}, in the order of the prize table
--
-- Lua's numbers are doubles: every product and sum below stays under 2^53, or is compared only.
-- Numbers become text through string.format('%.0f', x) alone; `..` would print 14 digits.

local split

do
  local floor, fmod = math.floor, math.fmod
  local DRAW_RANGE = 4503599627370496 -- 2^52: a draw is 13 hexadecimal digits

  -- Draw number n (from 0) of the current portion, a whole number in [0, 2^52). A block gives
  -- three; the last block is kept, because the draws of a portion are asked for in order.
  local block_name, block_digits
  local function draw(prefix, n)
    local block = floor(n / 3)
    local name = prefix .. string.format('%.0f', block)
    if name ~= block_name then
      block_name, block_digits = name, redis.sha1hex(name)
    end
    local first = (n - block * 3) * 13 + 1
    return tonumber(string.sub(block_digits, first, first + 12), 16)
  end

  -- Cumulative rounding: after i portions floor(i*T/n) fen are paid.
  local function cut_fixed(m, _, left_count)
    local n = m.start_count
    local quotient, rest = floor(m.start_fen / n), fmod(m.start_fen, n)
    local i = n - left_count
    return quotient + floor((i + 1) * rest / n) - floor(i * rest / n)
  end

  -- Uniform in [min, 2*mean - min] of what is left, kept feasible for the others.
  local function cut_double_mean(m, left_fen, left_count, prefix, skip)
    if left_count == 1 then
      return left_fen
    end
    local high = 2 * floor(left_fen / left_count) - m.min_fen
    if 2 * fmod(left_fen, left_count) >= left_count then
      high = high + 1
    end
    local low = m.min_fen
    if m.max_fen > 0 then
      high = math.min(high, m.max_fen)
      low = math.max(low, left_fen - (left_count - 1) * m.max_fen)
    end
    return low + fmod(draw(prefix, skip), high - low + 1)
  end

  -- A symmetric Dirichlet by stick-breaking: B is Beta(k, k(m-1)), one more uniform rounds S*B.
  -- With a cap, the side of it that has more room is cut, decided once per epoch.
  local function cut_lucky(m, left_fen, left_count, prefix, skip)
    local surplus = left_fen - m.min_fen * left_count
    local low, high, base, sign = 0, surplus, m.min_fen, 1
    if m.max_fen > 0 then
      local room = m.max_fen - m.min_fen
      if m.start_fen - m.min_fen * m.start_count > m.start_count * room / 2 then
        -- max*m - left, written so that no product exceeds 2^53.
        local quotient, rest = floor(left_fen / left_count), fmod(left_fen, left_count)
        surplus = (m.max_fen - quotient) * left_count - rest
        base, sign = m.max_fen, -1
      end
      low = math.max(0, surplus - (left_count - 1) * room)
      high = math.min(surplus, room)
    end
    if left_count == 1 or surplus == 0 then
      return base + sign * surplus
    end
    local k, product = m.evenness, 1
    for j = 0, k - 1 do
      local u = (draw(prefix, skip + j) + 0.5) / DRAW_RANGE
      product = product * u ^ (1 / (k * left_count - 1 - j))
    end
    local rounding = (draw(prefix, skip + k) + 0.5) / DRAW_RANGE
    local cut = floor(surplus * (1 - product) + rounding)
    return base + sign * math.max(math.min(cut, high), low)
  end

  local cuts = { cut_fixed, cut_lucky, cut_double_mean }

  split = function(m)
    local prefix = m.key .. ':' .. string.format('%.0f', m.index) .. ':'
    if m.strategy ~= 4 then
      return cuts[m.strategy](m, m.left_fen, m.left_count, prefix, 0), 0
    end
    -- Each portion left is equally likely to be the next; the rest of the table is cut as usual.
    local ticket = fmod(draw(prefix, 0), m.left_count)
    local rest_fen, rest_count, tier = m.left_fen, m.left_count, 0
    for number, line in ipairs(m.tiers) do
      if tier == 0 then
        if ticket < line[2] then
          tier = number
        else
          ticket = ticket - line[2]
        end
      end
      rest_fen = rest_fen - line[1] * line[2]
      rest_count = rest_count - line[2]
    end
    if tier > 0 then
      return m.tiers[tier][1], tier
    end
    return cuts[m.remainder](m, rest_fen, rest_count, prefix, 1), 0
  end
end
